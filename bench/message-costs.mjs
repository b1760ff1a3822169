/**
 * Takes the cost of a short message apart: profiles a decrypting daemon under `redis-benchmark` with 200 clients and
 * prints what the parts of its code take.
 *
 *     node bench/message-costs.mjs [--dist DIRECTORY]      another build of the daemon, to compare with
 */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { SPIPED, startSpiped } from "./pairs.mjs";
import { directory, end, runProgram } from "./processes.mjs";
import { endServices, portOf } from "./services.mjs";

const REQUESTS = 300_000;
const MESSAGES = 2 * REQUESTS;

/** Parts in the order of the table. A function belongs to the first part that matches its name and file. */
const PARTS = [
  [
    "not counted: idle, connecting, loading code",
    /^\((idle|root)\)|handshake|loader|realm|dh[A-Z]|node:net|wrapSafe/,
  ],
  ["write: the call, the kernel's delivery included", /^write(Buffer|v|Latin1String|Utf8String) $/],
  [
    "write: stream machinery and callbacks",
    /streams|_write|task_queues|WriteWrap|writeGeneric|afterWrite|onWrite|[wW]riteNow|deferError/,
  ],
  ["read: callback and libuv", /^onStreamRead|^\(program\)|stream_base_commons|async_hooks|trigger_async/],
  ["SHA-256", /^hash /],
  ["AES", /^update |setKeystream|[kK]eystream|fillLine|refill/],
  ["MAC comparison", /^timingSafeEqual/],
  ["WebAssembly kernel", /^wasm-/],
  [
    "sealer, opener, engine",
    /seal|open|Packet|compute|countValid|loadKeys|prepareLine|writeKey|offsetIn|latin1|^write |advance|^has /i,
  ],
  ["fairness", /^(take|begin|now|nextReadSize|buffer|resumeAll|sharedView|mayReadLong) /i],
  ["garbage collection", /^\(garbage collector\)/],
  ["pump and the rest", /./],
];

const profiles = join(directory, "profiles");
mkdirSync(profiles);
const redis = await portOf("redis");
const flags = ["--cpu-prof", "--cpu-prof-interval=200", `--cpu-prof-dir=${profiles}`];
const back = await startSpiped("ours", "-d", redis, [], flags);
const front = await startSpiped("ours", "-e", back.port);
await runProgram(
  ["redis-benchmark", "-p", `${front.port}`, "-t", "get", "-P", "1", "-c", "200", "-n", `${REQUESTS}`, "-q"],
  { timeout: 300_000 },
);
const exited = once(back.child, "exit");
back.child.kill("SIGTERM");
await exited;
await end(front.child);
await endServices();

const [file] = readdirSync(profiles);
const profile = JSON.parse(readFileSync(join(profiles, file), "utf8"));
const callFrames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]));
const times = new Map(PARTS.map(([name]) => [name, 0]));
for (const [i, sample] of profile.samples.entries()) {
  const { functionName, url } = callFrames.get(sample);
  const text = `${functionName} ${url.split("/").slice(-2).join("/")}`;
  const [part] = PARTS.find(([, pattern]) => pattern.test(text));
  times.set(part, times.get(part) + profile.timeDeltas[i]);
}
const version = spawnSync(process.execPath, ["--version"], { encoding: "utf8" }).stdout.trim();
console.log(`${SPIPED}, Node ${version}, ${MESSAGES} messages\n\npart | µs per message\n--- | ---`);
for (const [part, time] of times)
  if (!part.startsWith("not")) console.log(`${part} | ${(time / MESSAGES).toFixed(2)}`);
