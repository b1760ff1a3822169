/**
 * Measures this implementation and Tarsnap's spiped alternately in one run: `npm run bench`.
 *
 *     --quick          finishes within a minute; the figures are not meaningful
 *     --rows A,B       only these rows, which may include `engines`
 *     --rounds N       rounds of each row (default 5); the programs alternate in each round
 *     --node PATH      Node executable for our programs
 *     --no-write       do not write bench/results and docs/performance.svg
 *
 * Figures are medians over the rounds, with the minimum and maximum; ratios are medians of each round's ratio to the C
 * pair. There are no thresholds: the last column is the goal.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { drawChart } from "./chart.mjs";
import {
  end,
  key,
  launch,
  ours,
  processorTime,
  residentMemory,
  spipeOf,
  startPair,
  which,
} from "./pairs.mjs";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    rows: { type: "string" },
    rounds: { type: "string" },
    node: { type: "string" },
    "no-write": { type: "boolean", default: false },
  },
});
const { quick } = options;
if (options.node !== undefined) ours.node = options.node;
const rounds = Number(options.rounds ?? (quick ? 1 : 5));
const SIZE = quick ? 1 << 27 : 1 << 30;
const SECONDS = quick ? 0.5 : 3;
const WARM_UP = quick ? 0.2 : 8;

if (which("spiped") === undefined) {
  console.error("Tarsnap's spiped is not installed: apt-get install spiped");
  process.exit(1);
}
const build = spawnSync("npm", ["run", "--silent", "build"], { stdio: ["ignore", "ignore", "inherit"] });
if (build.status !== 0) process.exit(1);

/** Starts a load process, a service or a client; returns its RPC client. */
function startLoad() {
  const child = launch([process.execPath, new URL("load.mjs", import.meta.url).pathname], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  const waiting = new Map();
  let calls = 0;
  child.on("message", ({ id, result, error }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  });
  return {
    pid: child.pid,
    call: (operation, options) =>
      new Promise((resolve, reject) => {
        calls += 1;
        waiting.set(calls, { resolve, reject });
        child.send({ id: calls, operation, options });
      }),
    end: () => end(child),
  };
}

const service = startLoad();
const client = startLoad();
const target = await service.call("listen");

/** Runs `work` with a fresh pair. */
async function withPair(kind, extra, work) {
  const pair = await startPair(kind, target, extra);
  try {
    return await work(pair);
  } finally {
    await pair.end();
  }
}

const megabytes = (seconds, size = SIZE) => size / 1e6 / seconds;

/** One measurement of bulk transfer: MB/s, and s of CPU time per GB at each daemon. */
const bulk = (operation, size = SIZE, streams = 1, extra = []) =>
  async function measure(kind) {
    return withPair(kind, extra, async (pair) => {
      // The programs warm up, and the stream's contents are checked, in this first pass as well.
      await client.call(operation, { port: pair.port, size: 1 << 25 });
      const before = [pair.encrypting, pair.decrypting, service.pid, client.pid].map(processorTime);
      const seconds = await client.call(operation, { port: pair.port, size: size / streams, streams });
      const [encrypting, decrypting, ...load] = [
        pair.encrypting,
        pair.decrypting,
        service.pid,
        client.pid,
      ].map((pid, i) => (processorTime(pid) - before[i]) / (size / 1e9));
      return { value: megabytes(seconds, size), encrypting, decrypting, load: load[0] + load[1] };
    });
  };

const timed = (operation, pick, extra = []) =>
  async function measure(kind) {
    return withPair(kind, extra, async (pair) => {
      // Daemons are long-lived, so they are measured after their code has been compiled.
      await client.call(operation, { port: pair.port, seconds: WARM_UP });
      return pick(await client.call(operation, { port: pair.port, seconds: SECONDS }));
    });
  };

/** Echo while another connection is saturated. */
async function mixed(kind) {
  return withPair(kind, [], async (pair) => {
    const filler = startLoad();
    try {
      await filler.call("up", { port: pair.port, size: 1 << 25 });
      const filling = filler.call("up", { port: pair.port, size: quick ? SIZE * 2 : SIZE * 3 });
      const { p99, p50 } = await client.call("echo", { port: pair.port, seconds: quick ? 0.4 : 2 });
      await filling;
      return { value: p99, p50 };
    } finally {
      await filler.end();
    }
  });
}

/** Growth of each daemon with 1,000 idle connections, KiB per connection. */
async function idle(kind) {
  const count = quick ? 200 : 1000;
  return withPair(kind, [], async (pair) => {
    await client.call("hold", { port: pair.port, count: 50 });
    const pids = [pair.encrypting, pair.decrypting];
    const before = pids.map(residentMemory);
    await client.call("hold", { port: pair.port, count });
    const [encrypting, decrypting] = pids.map((pid, i) => (residentMemory(pid) - before[i]) / count);
    await client.call("release");
    return { value: (encrypting + decrypting) / 2, encrypting, decrypting };
  });
}

/** Growth of both daemons together while a reader is stalled, MiB; throws if it does not resume. */
async function stalled(kind) {
  return withPair(kind, [], async (pair) => {
    await client.call("up", { port: pair.port, size: 1 << 27 });
    const pids = [pair.encrypting, pair.decrypting];
    const before = pids.map(residentMemory);
    await client.call("fill", { port: pair.port });
    await new Promise((done) => setTimeout(done, quick ? 3000 : 30_000));
    const growth = pids.reduce((sum, pid, i) => sum + residentMemory(pid) - before[i], 0) / 1024;
    const [sent, received] = await Promise.all([client.call("finish"), service.call("resume")]);
    if (sent !== received) throw new Error(`${received} of ${sent} bytes arrived`);
    return { value: growth };
  });
}

/** From the start of spipe to the first byte that comes back, ms. */
async function coldStart(kind) {
  return withPair("c", [], async (pair) => {
    const times = [];
    for (let i = 0; i < (quick ? 3 : 20); i += 1) {
      const start = performance.now();
      const command = [...spipeOf(kind), "-t", `[127.0.0.1]:${pair.wire}`, "-k", key];
      const spipe = spawn(command[0], command.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
      spipe.stdin.write("Ex");
      await once(spipe.stdout, "data");
      times.push(performance.now() - start);
      spipe.kill("SIGKILL");
    }
    return { value: median(times) };
  });
}

/** Node alone, ms. */
function emptyNode() {
  const times = [];
  for (let i = 0; i < (quick ? 3 : 20); i += 1) {
    const start = performance.now();
    spawnSync(ours.node, ["-e", "0"]);
    times.push(performance.now() - start);
  }
  return { value: median(times) };
}

/** MB/s of sealing alone, on both engines, from the micro-benchmark. */
function engines() {
  const micro = spawnSync(ours.node, [new URL("micro.mjs", import.meta.url).pathname, "--json"], {
    encoding: "utf8",
  });
  const { native, portable } = JSON.parse(micro.stdout);
  return { native: { value: native }, portable: { value: portable } };
}

const MB = { unit: "MB/s", better: "more" };
const others = which("stunnel4") === undefined && which("stunnel") === undefined ? [] : ["stunnel"];
/** Each row: the programs measured, how, and the goal. */
const ROWS = {
  up: {
    title: "bulk, client to service",
    ...MB,
    kinds: ["ours", "c", ...others],
    measure: bulk("up"),
    goal: "≥ 2.0",
  },
  down: {
    title: "bulk, service to client",
    ...MB,
    kinds: ["ours", "c", ...others],
    measure: bulk("down"),
    goal: "≥ 2.0",
  },
  "c-ours": { title: "C -e to our -d", ...MB, kinds: ["c-ours", "c"], measure: bulk("up"), goal: "≥ 1.3" },
  "ours-c": { title: "our -e to C -d", ...MB, kinds: ["ours-c", "c"], measure: bulk("up"), goal: "≥ 1.15" },
  parallel: {
    title: "8 streams",
    ...MB,
    kinds: ["ours", "c", ...others],
    measure: bulk("up", SIZE, 8),
    goal: "≥ 2.0",
  },
  workers: {
    title: "8 streams, --workers 2 and 1",
    ...MB,
    kinds: ["two", "one"],
    measure: (kind) => bulk("up", SIZE, 8, kind === "two" ? ["--workers", "2"] : [])("ours"),
    goal: "≥ 1.0",
  },
  connections: {
    title: "connections, 16 at a time",
    unit: "1/s",
    better: "more",
    kinds: ["ours", "c", ...others],
    measure: timed("connections", (value) => ({ value })),
    goal: "≥ 1.5",
  },
  echo: {
    title: "64-byte echo, median",
    unit: "µs",
    better: "less",
    kinds: ["ours", "c", ...others],
    measure: timed("echo", ({ p50, p99 }) => ({ value: p50, p99 })),
    goal: "≤ 1.0",
    also: [{ field: "p99", title: "64-byte echo, 99th percentile", unit: "µs", goal: "≤ 1.2" }],
  },
  mixed: {
    title: "echo during a bulk transfer, 99th percentile",
    unit: "µs",
    better: "less",
    kinds: ["ours", "c"],
    measure: mixed,
    goal: "≤ 1.0",
  },
  idle: {
    title: "memory per idle connection",
    unit: "KiB",
    better: "less",
    kinds: ["ours", "c"],
    measure: idle,
    goal: "≤ 1.0",
  },
  stalled: {
    title: "growth while a reader is stalled",
    unit: "MiB",
    better: "less",
    kinds: ["ours", "c"],
    measure: stalled,
    goal: "< 2 MiB",
  },
  spipe: {
    title: "spipe, start to first byte",
    unit: "ms",
    better: "less",
    kinds: ["ours", "c", "node"],
    measure: (kind) => (kind === "node" ? emptyNode() : coldStart(kind)),
    goal: "≤ 1.5 × node",
    against: "node",
  },
};
// Packets from the client are opened by the -d side, those from the service by the -e side.
for (const [name, opening, sealing] of [
  ["up", "decrypting", "encrypting"],
  ["down", "encrypting", "decrypting"],
]) {
  ROWS[name].also = [
    { field: opening, title: "  CPU time, decrypting side", unit: "s/GB", goal: "≤ 0.65" },
    { field: sealing, title: "  CPU time, encrypting side", unit: "s/GB", goal: "≤ 0.75" },
    { field: "load", title: "  CPU time, load at both ends", unit: "s/GB", goal: "" },
  ];
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const spread = (values) => ({
  median: median(values),
  lowest: Math.min(...values),
  highest: Math.max(...values),
});
const format = (value) =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
const show = ({ median, lowest, highest }) => `${format(median)} (${format(lowest)} to ${format(highest)})`;

/** Measures a row: in each round all programs, in alternating order. */
async function runRow({ kinds, measure }) {
  const results = Object.fromEntries(kinds.map((kind) => [kind, []]));
  for (let round = 0; round < rounds; round += 1) {
    const order = round % 2 === 0 ? kinds : [...kinds].reverse();
    for (const kind of order) results[kind].push(await measure(kind));
  }
  return results;
}

const wanted = options.rows?.split(",") ?? [...Object.keys(ROWS), "engines"];
for (const name of wanted) {
  if (ROWS[name] === undefined && name !== "engines") {
    console.error(`unknown row ${name}; the rows are ${[...Object.keys(ROWS), "engines"].join(", ")}`);
    process.exit(1);
  }
}
const version = (command, ...args) => {
  const { stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  return `${stdout}${stderr}`.trim().split("\n")[0];
};
const report = {
  date: new Date().toISOString(),
  machine: {
    processor: cpus()[0].model,
    cores: cpus().length,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    kernel: release(),
  },
  versions: {
    node: version(ours.node, "--version"),
    spiped: version("spiped", "-v"),
    stunnel: others.length > 0 ? version("dpkg-query", "-W", "stunnel4") : undefined,
  },
  rounds,
  size: SIZE,
  rows: {},
};
console.log(
  `${report.machine.processor}, ${report.machine.cores} cores; Node ${report.versions.node}; ${report.versions.spiped}`,
);
console.log("measured | ours | C | others | ratio | goal\n--- | --- | --- | --- | --- | ---");
for (const name of wanted.filter((each) => each !== "engines")) {
  const row = ROWS[name];
  const results = await runRow(row);
  const [subject] = row.kinds;
  const reference = row.against ?? row.kinds[1];
  for (const { field, title, unit, goal } of [
    { field: "value", title: row.title, unit: row.unit, goal: row.goal },
    ...(row.also ?? []),
  ]) {
    const figures = Object.fromEntries(
      row.kinds.map((kind) => [kind, spread(results[kind].map((result) => result[field]))]),
    );
    const ratio = spread(results[subject].map((result, i) => result[field] / results[reference][i][field]));
    report.rows[field === "value" ? name : `${name}-${field}`] = {
      title: title.trim(),
      unit,
      figures,
      ratio,
      goal,
    };
    const rest = row.kinds.slice(2).map((kind) => `${kind} ${show(figures[kind])}`);
    console.log(
      [
        `${title}, ${unit}`,
        show(figures[subject]),
        show(figures[row.kinds[1]]),
        rest.join(", "),
        show(ratio),
        goal,
      ].join(" | "),
    );
  }
}
if (wanted.includes("engines")) {
  const { native, portable } = engines();
  report.engines = { native: native.value, portable: portable.value };
  console.log(
    `sealing alone, MB/s: native engine ${format(native.value)}, portable engine ${format(portable.value)}`,
  );
}
await Promise.all([service.end(), client.end()]);

if (!options["no-write"] && !quick) {
  mkdirSync("bench/results", { recursive: true });
  const file = `bench/results/${report.date.slice(0, 10)}-node${report.versions.node.replace(/^v(\d+).*/, "$1")}.json`;
  // Rows that are not measured in this run keep the results from earlier that day.
  const earlier = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
  const whole = { ...earlier, ...report, rows: { ...earlier.rows, ...report.rows } };
  writeFileSync(file, `${JSON.stringify(whole, null, 2)}\n`);
  if (options.node === undefined) writeFileSync("docs/performance.svg", drawChart(whole));
  console.log(`written: ${file}`);
}
process.exit(0);
