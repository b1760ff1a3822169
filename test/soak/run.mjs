/**
 * Soak test of two pairs of our daemons, under moderate load:
 *
 *     node test/soak/run.mjs [MINUTES [SUMMARY.json]]         default 30; dist/ must be built
 *
 * The pair `steady` runs from start to end, `-d` with two workers; its keys and tunnels change meanwhile. The pair
 * `drained`, `-e` with two workers, is replaced by new processes every 10 minutes while connections run. Both carry
 * uploads, downloads, echoes, sessions, short connections, bursts, half-closes, slow readers, and connections that a
 * client, the service or a relay breaks, also inside a packet; peers with a wrong key connect from other addresses.
 * Every byte is compared with what was sent, and every end with what it must be.
 *
 * Exits with 1 if data or an end was wrong, a descriptor leaked, a daemon did not drain, or memory grew.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { Daemon, freePort, processes, summarize } from "./daemons.mjs";
import { attack, replace, rotateKeys, writeAtOnce } from "./events.mjs";
import * as patterns from "./patterns.mjs";
import {
  allCounts,
  count,
  counted,
  elapsed,
  fail,
  failures,
  isHopeless,
  sleep,
  startClock,
  until,
} from "./report.mjs";
import { openSockets, Relay, startService } from "./service.mjs";

const minutes = Number(process.argv[2] ?? 30);
if (!(minutes > 0)) {
  console.error(`how many minutes? ${process.argv[2]} is no number of them`);
  process.exit(1);
}
const summaryFile = process.argv[3];
const total = minutes * 60;
/** Returns a period in seconds, shorter in a run that would not reach it several times. */
const period = (seconds, parts) => Math.min(seconds, total / parts);
const LONGEST_SESSION = period(60, 6);
const isLong = minutes >= 5;

const directory = mkdtempSync(join(tmpdir(), "spiped-soak-"));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
// Otherwise a signal would leave the daemons behind.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
const inDirectory = (...parts) => join(directory, ...parts);
const address = (port) => `[127.0.0.1]:${port}`;

/** Creates a directory of keys; returns the key that clients start with. */
function makeKeys(name) {
  mkdirSync(inDirectory(name));
  const keys = { main: randomBytes(32), permanent: randomBytes(32) };
  writeAtOnce(inDirectory(name, "main.0.key"), keys.main);
  writeAtOnce(inDirectory(name, "permanent.key"), keys.permanent);
  writeAtOnce(inDirectory(`${name}.key`), keys.main);
  return keys;
}

const tunnel = (name, mode, source, target, key) =>
  `[tunnels.${name}]\n${mode} = true\nsource = "${address(source)}"\ntarget = "${address(target)}"\nkey = "${key}"\nmax-connections = 0\n`;

const service = (await startService()).address().port;
const away = { port: await freePort(), isOpen: false, changes: 0, server: undefined };

async function makeSteadyPair() {
  const { permanent } = makeKeys("steady");
  const [wire, front, awayWire, awayFront, extra] = await Promise.all(Array.from({ length: 5 }, freePort));
  const cuts = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const relay = new Relay(wire);
      return { relay, port: await relay.listen(), front: await freePort() };
    }),
  );
  const serverFile = inDirectory("steady-d.toml");
  const clientFile = inDirectory("steady-e.toml");
  const writeConfiguration = ({ hasExtraTunnel }) => {
    const tunnels = [
      tunnel("main", "decrypt", wire, service, "steady"),
      tunnel("away", "decrypt", awayWire, away.port, "steady"),
      ...(hasExtraTunnel ? [tunnel("extra", "decrypt", extra, service, "steady")] : []),
    ];
    writeAtOnce(serverFile, tunnels.join(""));
  };
  writeConfiguration({ hasExtraTunnel: false });
  writeFileSync(
    clientFile,
    [
      tunnel("main", "encrypt", front, wire, "steady.key"),
      tunnel("away", "encrypt", awayFront, awayWire, "steady.key"),
      ...cuts.map((cut, i) => tunnel(`cut-${i}`, "encrypt", cut.front, cut.port, "steady.key")),
    ].join(""),
  );
  const server = new Daemon("steady -d", {
    args: ["--config", serverFile],
    ports: [wire, awayWire],
    workers: 2,
    directory,
  });
  const client = new Daemon("steady -e", {
    args: ["--config", clientFile],
    ports: [front, awayFront, ...cuts.map((cut) => cut.front)],
    directory,
  });
  return {
    name: "steady",
    server,
    client,
    wire,
    front,
    awayFront,
    extra,
    cuts,
    directory: inDirectory("steady"),
    clientKey: inDirectory("steady.key"),
    permanentKey: permanent,
    writeConfiguration,
  };
}

async function makeDrainedPair() {
  makeKeys("drained");
  const [wire, front] = [await freePort(), await freePort()];
  const options = (mode, source, target, key) => [
    mode,
    "-n",
    "0",
    "-s",
    address(source),
    "-t",
    address(target),
    "-k",
    key,
  ];
  const server = new Daemon("drained -d", {
    args: options("-d", wire, service, inDirectory("drained")),
    ports: [wire],
    directory,
  });
  const client = new Daemon("drained -e", {
    args: options("-e", front, wire, inDirectory("drained.key")),
    ports: [front],
    workers: 2,
    directory,
  });
  return { name: "drained", server, client, wire, front };
}

const steady = await makeSteadyPair();
const drained = await makeDrainedPair();
const pairs = [steady, drained];
const daemons = pairs.flatMap(({ server, client }) => [server, client]);
for (const daemon of daemons) await daemon.start();
console.log(`started after ${elapsed().toFixed(1)} s, for ${minutes} minutes`);
startClock();

let isOver = false;
const running = () => !isOver && elapsed() < total && !isHopeless();
const drains = [];

/** Repeats a pattern, with a pause of about `seconds` between its connections. */
async function repeat(pattern, pair, seconds, options = {}) {
  const pause = isLong ? seconds : Math.min(seconds, 0.2);
  await sleep(Math.random() * pause * 1000);
  while (running()) {
    await pattern(pair, options);
    await sleep((0.5 + Math.random()) * pause * 1000);
  }
}

/** Calls `event` every so many seconds, not at the same time as itself. */
async function every(seconds, event) {
  for (let round = 1; running(); round += 1) {
    const due = round * seconds;
    await until(() => elapsed() >= due || !running(), seconds + 5);
    if (!running() || total - elapsed() < seconds / 4) return;
    await event(round);
  }
}

/** The service that the tunnel `away` connects to listens half of the time. */
async function toggleAway() {
  away.changes += 1;
  if (away.isOpen)
    await new Promise((closed) => {
      away.server.close(closed);
      // Its connections are open until their clients are done.
      closed();
    });
  else away.server = await startService(away.port);
  away.isOpen = !away.isOpen;
  await sleep(200);
  away.changes += 1;
  count("target: changes between there and away");
}

/** Load averages of the machine: how much else ran. */
const loads = [];
const sampling = setInterval(
  () => {
    for (const daemon of daemons) daemon.sample();
    loads.push(loadavg()[0]);
  },
  Math.min(5000, total * 20),
);
const progress = setInterval(() => {
  const memory = processes.map(({ samples }) => samples.at(-1)?.rss ?? 0);
  console.log(
    `${(elapsed() / 60).toFixed(0)} min: ${counted("connections")} connections, ${(counted("bytes received by clients") / 1e9).toFixed(1)} + ${(counted("bytes received by the service") / 1e9).toFixed(1)} GB, ${failures.length} failures, up to ${Math.max(...memory).toFixed(0)} MiB a process`,
  );
}, 300_000);

const options = { long: isLong, longest: LONGEST_SESSION, burstSize: isLong ? 150 : 50 };
const common = pairs.flatMap((pair) => [
  repeat(patterns.upload, pair, 4),
  repeat(patterns.download, pair, 4),
  ...Array.from({ length: 3 }, () => repeat(patterns.echo, pair, 0.5)),
  ...Array.from({ length: 3 }, () => repeat(patterns.churn, pair, 0.3, options)),
  ...Array.from({ length: 4 }, () => repeat(patterns.session, pair, 1, options)),
  repeat(patterns.abort, pair, 0.5),
  repeat(patterns.serviceReset, pair, 0.8),
  repeat(patterns.slowReader, pair, 5, options),
  repeat(patterns.slowService, pair, 5, options),
]);
const drainSeconds = LONGEST_SESSION + 120;
await Promise.all([
  ...common,
  ...steady.cuts.map((cut) => repeat(patterns.cut, steady, 0.4, cut)),
  repeat(patterns.intermittent, steady, 0.8, { away }),
  every(period(60, 3), (round) => patterns.burst(pairs[round % 2], options)),
  every(period(30, 4), toggleAway),
  every(period(45, 3), (round) => attack(pairs[round % 2], round)),
  every(period(20, 5), () => drained.server.reload()),
  every(period(25, 5), () => drained.client.reload()),
  every(period(120, 4), (round) => rotateKeys(steady, round, isLong ? undefined : 1000)),
  every(period(600, 2.5), async () => {
    // The server's process exits before the client's is told to: its connections pass through both.
    drains.push(await replace(drained, drained.server, { isBehind: true, seconds: drainSeconds }));
    drains.push(await replace(drained, drained.client, { isBehind: false, seconds: drainSeconds }));
  }),
]);
isOver = true;
const duration = elapsed();

if (!(await until(() => openSockets.size === 0, 100)))
  fail(`${openSockets.size} connections are open at the service`);
const descriptorsLeft = () => daemons.map((daemon) => daemon.descriptorsLeft());
await until(() => descriptorsLeft().every((left) => left <= 0), 100);
for (const [i, left] of descriptorsLeft().entries())
  if (left > 0) fail(`${daemons[i].name}: ${left} descriptors left`);
clearInterval(sampling);
clearInterval(progress);
for (const daemon of daemons) daemon.sample();
for (const daemon of daemons) await (await daemon.drain(20))();

/** Memory may rise by this much, by trend, in the second half of a process's life, in MiB. */
const MAX_RISE = 8;
const summaries = processes.map(summarize).filter((summary) => summary !== undefined);
for (const { name, seconds, secondHalfSeconds, firstHalfMiB, secondHalfMiB, slopeMiBPerHour } of summaries) {
  // Memory grows in a daemon's first minutes.
  if (seconds < 290) continue;
  const limit = seconds >= 3600 ? MAX_RISE / 2 : MAX_RISE;
  const rise = (slopeMiBPerHour * secondHalfSeconds) / 3600;
  if (rise > limit || secondHalfMiB > firstHalfMiB + MAX_RISE)
    fail(`memory of ${name} grew: slope ${slopeMiBPerHour.toFixed(1)} MiB an hour`);
}
/** What each run must have done; a run of a few seconds on a busy machine does not do the rest. */
const ALWAYS = ["upload", "echo", "churn"].map((pattern) => `${pattern}: complete`);
for (const name of [
  ...["upload", "download", "echo", "session", "churn", "burst", "slow reader", "slow service"].map(
    (pattern) => `${pattern}: complete`,
  ),
  "abort: closed by the client",
  "service reset: reset at the client",
  "cut: inside a packet",
  "intermittent: complete",
  "intermittent: closed, target away",
  "keys rotated",
  "keys revoked with an open connection",
  "tunnels removed with an open connection",
  "addresses penalized",
  "connections in flight at a drain",
]) {
  if (counted(name) === 0 && (minutes >= 1 || ALWAYS.includes(name))) fail(`nothing was counted: ${name}`);
}
if (drains.length === 0) fail("no daemon was drained during the run");

const processorSeconds = summaries.reduce((sum, summary) => sum + summary.processorSeconds, 0);
const own = process.cpuUsage();
const summary = {
  minutes: duration / 60,
  date: new Date().toISOString(),
  node: process.version,
  processor: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  coresUsedByDaemons: processorSeconds / duration,
  coresUsedByTest: (own.user + own.system) / 1e6 / duration,
  loadAverage: loads.reduce((sum, load) => sum + load, 0) / loads.length,
  failures,
  counts: allCounts(),
  drains,
  processes: summaries,
};
const fixed = (value, digits = 1) => value.toFixed(digits);
console.log(
  `\n${fixed(summary.minutes)} minutes, Node ${summary.node}, ${summary.cores} cores of ${summary.processor}; daemons used ${fixed(summary.coresUsedByDaemons, 2)} cores, the test ${fixed(summary.coresUsedByTest, 2)}; load average ${fixed(summary.loadAverage)}`,
);
for (const [name, value] of Object.entries(summary.counts)) console.log(`  ${name}: ${value}`);
for (const { daemon, inFlight, seconds } of drains)
  console.log(`drain of ${daemon}: ${inFlight} connections in flight, exit after ${fixed(seconds)} s`);
for (const one of summaries) {
  console.log(
    `${one.name} (${fixed(one.seconds / 60)} min): memory ${fixed(one.firstHalfMiB)} then ${fixed(one.secondHalfMiB)} MiB, at most ${fixed(one.maxMiB)}, slope ${fixed(one.slopeMiBPerHour, 2)} MiB an hour in the second half; descriptors ${one.initialDescriptors} at first, at most ${one.maxDescriptors}, ${one.lastDescriptors} at the end`,
  );
}
if (summaryFile !== undefined) writeFileSync(summaryFile, `${JSON.stringify(summary, undefined, 2)}\n`);
if (failures.length > 0)
  for (const daemon of daemons) console.log(`${daemon.name}:\n${daemon.lastMessages()}`);
console.log(failures.length === 0 ? "no failures" : failures.join("\n"));
process.exit(failures.length === 0 ? 0 : 1);
