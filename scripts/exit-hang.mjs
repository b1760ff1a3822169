/**
 * Looks for programs of ours that have done all their work and do not exit.
 *
 * `process.exit` joins V8's threads. One that compiles and runs out of room waits for the main thread to collect
 * garbage, and the main thread waits for it (nodejs/node#54918). A busy machine and many tries are what it takes: before
 * src/daemon/process/end-process.ts, one of 20 to 40 transfers of 10 to 20 MiB hung on Node 24 and 26, and one of 100 of more.
 *
 *     npm run build
 *     node scripts/exit-hang.mjs --node /usr/bin/node --runs 1000
 *
 * Each run is one of these:
 * - `--program spipe`: a transfer, there and back, through our `spipe` and a `spiped -d`.
 * - `--program spiped`: four transfers through our `spiped -d`, then SIGTERM.
 * - `--program workers`: the same with `--workers 2`; workers that stay behind count too.
 *
 * Others: `--at-once 4` runs side by side, `--mib 40-100` a transfer, `--wait 20` s after the last byte (or after
 * SIGTERM) count as a hang, `--daemon ours` instead of Tarsnap's `spiped -d`, `--idle` without the process that spins
 * half of the time, `--stacks DIR` for the stacks of what hangs, by gdb. `--stress` has V8's threads allocate all the
 * time, so that `process.exit` hangs in one of five runs, of however little data; for Node 24 and later, for earlier ones
 * wait for all that threads do and would hang in any case. The exit status is 0 if nothing hung or failed.
 *
 * Needs Tarsnap's spiped and `setpriv` (util-linux), which ends all that was started if this process is killed.
 */
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({
  options: {
    node: { type: "string", default: process.execPath },
    program: { type: "string", default: "spipe" },
    daemon: { type: "string", default: "c" },
    runs: { type: "string", default: "100" },
    "at-once": { type: "string", default: "4" },
    mib: { type: "string", default: "40-100" },
    wait: { type: "string", default: "20" },
    stacks: { type: "string" },
    stress: { type: "boolean", default: false },
    idle: { type: "boolean", default: false },
  },
});

const TRANSFERS_PER_DAEMON = 4;
const MIB = 1 << 20;
/** Workers may take their time to start on a busy machine. */
const PATIENT = ["-o", "60"];

const runs = Number(options.runs);
const atOnce = Number(options["at-once"]);
const waitMs = Number(options.wait) * 1000;
const [smallest, largest = smallest] = options.mib.split("-").map(Number);
const run = { spipe: runSpipe, spiped: runSpiped, workers: runSpiped }[options.program];
if (run === undefined || ![runs, atOnce, waitMs, smallest, largest].every((number) => number > 0)) {
  console.error("exit-hang: wrong arguments; see the head of the file");
  process.exit(1);
}

const directory = mkdtempSync(join(tmpdir(), "exit-hang-"));
const removeDirectory = () => rmSync(directory, { recursive: true, force: true });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.once(signal, () => {
    removeDirectory();
    process.kill(process.pid, signal);
  });
}
const key = join(directory, "key");
writeFileSync(key, randomBytes(32), { mode: 0o600 });
const flags = options.stress ? ["--stress-concurrent-allocation"] : [];
const ours = (program) => [options.node, ...flags, resolve(`dist/bin/${program}.cjs`)];
const block = randomBytes(MIB);

/** Starts a program that does not outlive this one. */
function start(command, stdio) {
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", ...command], { stdio });
  child.ended = once(child, "close").then(([status, signal]) => ({ status, signal }));
  return child;
}

/** Waits until a process listens on a UNIX socket; the file appears before that. */
async function listening(path) {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const sockets = readFileSync("/proc/net/unix", "latin1").split("\n");
    // The flag is __SO_ACCEPTCON.
    if (sockets.some((line) => line.endsWith(` ${path}`) && line.split(" ")[3] === "00010000")) return;
    if (Date.now() > deadline) throw new Error(`no process listens on ${path}`);
    await delay(10);
  }
}

/** Sends `size` bytes through a spipe and checks the echo; resolves when all of it has arrived. */
async function transfer(spipe, size) {
  let sent = 0;
  let received = 0;
  spipe.stdin.on("error", () => {});
  const back = (async () => {
    for await (const chunk of spipe.stdout.iterator({ destroyOnReturn: false })) {
      for (let done = 0; done < chunk.length; ) {
        const at = (received + done) % MIB;
        const length = Math.min(chunk.length - done, MIB - at);
        if (block.compare(chunk, done, done + length, at, at + length) !== 0)
          throw new Error("the echo differs");
        done += length;
      }
      received += chunk.length;
      if (received === size) return;
    }
    throw new Error(`${received} of ${size} bytes were echoed`);
  })();
  back.catch(() => {});
  while (sent < size && spipe.exitCode === null) {
    const length = Math.min(65_536, size - sent);
    const at = sent % MIB;
    sent += length;
    if (!spipe.stdin.write(block.subarray(at, at + length)))
      await Promise.race([once(spipe.stdin, "drain"), spipe.ended]);
  }
  spipe.stdin.end();
  await back;
}

const someSize = () => Math.round((smallest + Math.random() * (largest - smallest)) * 16) * 65_536;

/** Waits until a process exits; returns the problem, or an empty string. */
async function watchEnd(child) {
  const ended = await Promise.race([child.ended, delay(waitMs, undefined, { ref: false })]);
  if (ended !== undefined) return ended.status === 0 ? "" : `exited with ${ended.status ?? ended.signal}`;
  keepStacks(child.pid);
  child.kill("SIGKILL");
  return "hung";
}

let stackFiles = 0;
function keepStacks(pid) {
  if (options.stacks === undefined) return;
  mkdirSync(options.stacks, { recursive: true });
  const text = execFileSync("gdb", ["-p", String(pid), "-batch", "-ex", "thread apply all bt 25"], {
    stdio: ["ignore", "pipe", "ignore"],
    maxBuffer: 1 << 26,
  });
  writeFileSync(join(options.stacks, `${process.pid}-${++stackFiles}.txt`), text);
}

async function runSpipe() {
  const child = start([...ours("spipe"), "-t", daemonAddress, "-k", key], ["pipe", "pipe", "inherit"]);
  try {
    await transfer(child, someSize());
  } catch (error) {
    child.kill("SIGKILL");
    return error.message;
  }
  const result = await watchEnd(child);
  child.stdout.destroy();
  return result;
}

let daemons = 0;
async function runSpiped() {
  const address = join(directory, `spiped-${++daemons}`);
  const more = options.program === "workers" ? ["--workers", "2"] : [];
  const daemon = start(
    [...ours("spiped"), "-F", "-d", "-s", address, "-t", target, "-k", key, ...PATIENT, ...more],
    ["ignore", "ignore", "inherit"],
  );
  await listening(address);
  const clients = Array.from({ length: TRANSFERS_PER_DAEMON }, () =>
    start(["spipe", "-t", address, "-k", key, ...PATIENT], ["pipe", "pipe", "inherit"]),
  );
  try {
    await Promise.all(clients.map((client) => transfer(client, someSize())));
  } catch (error) {
    for (const child of [daemon, ...clients]) child.kill("SIGKILL");
    return error.message;
  }
  const children = readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, "latin1").trim();
  daemon.kill("SIGTERM");
  const result = await watchEnd(daemon);
  const workers = children.split(" ").filter((pid) => pid !== "");
  const deadline = Date.now() + waitMs;
  while (workers.some(isAlive) && Date.now() < deadline) await delay(10);
  const left = workers.filter(isAlive);
  for (const pid of left) {
    keepStacks(pid);
    process.kill(Number(pid), "SIGKILL");
  }
  for (const client of clients) client.kill("SIGKILL");
  return left.length > 0 ? "hung" : result;
}

/** Whether a worker is still running. One that has ended and was not waited for is not. */
function isAlive(pid) {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}

const target = join(directory, "echo");
const echo = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on("error", () => {});
  socket.pipe(socket);
}).listen(target);
await once(echo, "listening");

const helpers = [];

const daemonAddress = join(directory, "spiped");
if (options.program === "spipe") {
  const program = options.daemon === "ours" ? ours("spiped") : ["spiped"];
  const args = ["-F", "-d", "-s", daemonAddress, "-t", target, "-k", key, "-n", "0"];
  helpers.push(start([...program, ...args], ["ignore", "ignore", "inherit"]));
  await listening(daemonAddress);
}
if (!options.idle) {
  const spin = "setInterval(() => { const end = Date.now() + 10; while (Date.now() < end); }, 20)";
  helpers.push(start([options.node, "-e", spin], "ignore"));
}

const counts = new Map();
const summary = () => [...counts].map(([result, count]) => `${count} ${result}`).join(", ");
let next = 0;
let done = 0;
await Promise.all(
  Array.from({ length: atOnce }, async () => {
    while (next++ < runs) {
      const result = (await run()) || "good";
      counts.set(result, (counts.get(result) ?? 0) + 1);
      if (result !== "good") console.log(`${new Date().toISOString()} ${result}`);
      if (++done % 100 === 0) console.log(`${new Date().toISOString()} ${summary()}`);
    }
  }),
);
const version = execFileSync(options.node, ["--version"], { encoding: "utf8" }).trim();
console.log(
  `${options.program} on Node ${version}, ${runs} runs of ${options.mib} MiB, ${atOnce} at once: ${summary()}`,
);
process.exitCode = counts.get("good") === runs ? 0 : 1;
for (const helper of helpers) {
  helper.kill("SIGKILL");
  await helper.ended;
}
echo.close();
removeDirectory();
