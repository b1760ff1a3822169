/**
 * A coverage-guided fuzzer: mutates a corpus and keeps inputs that reach new blocks of code, by V8's coverage.
 *
 *     node test/fuzz/run.mjs TARGET [MINUTES]        default 1; the targets are the modules in test/fuzz/targets
 *
 * Inputs that reach new blocks are added to test/fuzz/corpus/TARGET, and those that no longer do are removed. An input
 * for which a property does not hold, or that takes too long, is written to test/fuzz/crash-*, and the run exits with 1.
 */
import { createHash, randomBytes, randomInt } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { importTypeScript } from "../support/import-typescript.mjs";

/** Maximum size of an input, in bytes. */
const MAX_SIZE = 8192;
/** Maximum time of an input: of the processor, and for one that never ends, in ms. */
const MAX_CPU_MS = 1000;
const MAX_TIME_MS = 60_000;

const directory = fileURLToPath(new URL(".", import.meta.url));
const [name, minutes = "1"] = process.argv.slice(2);
const targets = readdirSync(join(directory, "targets")).map((file) => file.replace(/\.ts$/, ""));
if (name === undefined || !targets.includes(name) || !(Number(minutes) >= 0)) {
  console.error(`usage: node test/fuzz/run.mjs ${targets.join("|")} [MINUTES]`);
  process.exit(1);
}
const corpusDirectory = join(directory, "corpus", name);
mkdirSync(corpusDirectory, { recursive: true });

const session = new Session();
session.connect();
await session.post("Profiler.enable");
await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
const { module, url } = await importTypeScript(`test/fuzz/targets/${name}.ts`);
const target = await module.makeTarget();

/** Blocks of code that have run, classified by execution count. */
const reached = new Set();

/** Returns the blocks reached since the last call that were never reached before. */
async function newBlocks() {
  const { result } = await session.post("Profiler.takePreciseCoverage");
  const found = [];
  for (const script of result) {
    if (script.url !== url) continue;
    for (const { functionName, ranges } of script.functions) {
      for (const { startOffset, count } of ranges) {
        if (count === 0) continue;
        const block = `${functionName}:${startOffset}:${Math.min(3, Math.floor(Math.log2(count)))}`;
        if (!reached.has(block)) found.push(block);
      }
    }
  }
  return found;
}

async function reachesNewBlocks() {
  const blocks = await newBlocks();
  for (const block of blocks) reached.add(block);
  return blocks.length > 0;
}

function keep(input, where = corpusDirectory) {
  const file = createHash("sha256").update(input).digest("hex").slice(0, 16);
  writeFileSync(join(where, where === corpusDirectory ? file : `crash-${file}`), input);
  return file;
}

function fail(input, reason) {
  console.error(`test/fuzz/crash-${keep(input, directory)}: ${reason}`);
  process.exit(1);
}

/** The input that runs, and the number of inputs before it, for the thread that watches for one that never ends. */
const shared = new SharedArrayBuffer(8 + MAX_SIZE);
const progress = new Uint32Array(shared, 0, 2);
const current = Buffer.from(shared, 8);
const watchdog = new Worker(
  `const { workerData: { shared, file, time } } = require("node:worker_threads");
  const progress = new Uint32Array(shared, 0, 2);
  let last = -1;
  setInterval(() => {
    if (progress[0] !== last) return void (last = progress[0]);
    require("node:fs").writeFileSync(file, new Uint8Array(shared, 8).slice(0, progress[1]));
    console.error(file + ": does not end");
    setTimeout(() => process.kill(process.pid, "SIGKILL"), 100);
  }, time);`,
  { eval: true, workerData: { shared, file: join(directory, "crash-endless"), time: MAX_TIME_MS } },
);
watchdog.unref();

async function attempt(input) {
  input.copy(current);
  progress[1] = input.length;
  progress[0] += 1;
  const start = process.cpuUsage();
  try {
    await target.run(input);
  } catch (error) {
    fail(input, error.stack);
  }
  const { user, system } = process.cpuUsage(start);
  if (user + system > MAX_CPU_MS * 1000) fail(input, `takes ${(user + system) / 1000} ms`);
}
process.on("unhandledRejection", (error) => fail(Buffer.from(current.subarray(0, progress[1])), error.stack));
process.on("uncaughtException", (error) => fail(Buffer.from(current.subarray(0, progress[1])), error.stack));

const corpus = [...target.seeds];
for (const input of corpus) await attempt(input);
await reachesNewBlocks();
const kept = readdirSync(corpusDirectory).map((file) => ({
  file,
  input: readFileSync(join(corpusDirectory, file)),
}));
// The shortest first, so that it replaces longer ones that reach the same.
for (const { file, input } of kept.sort((a, b) => a.input.length - b.input.length)) {
  await attempt(input);
  if (await reachesNewBlocks()) corpus.push(input);
  else rmSync(join(corpusDirectory, file));
}

const pick = (list) => list[randomInt(list.length)];
const INTERESTING = [0, 1, 0x7f, 0x80, 0xff];

/** Returns a copy with one to eight small changes. */
function mutate(original) {
  let input = Buffer.from(original);
  const insert = (at, bytes) => Buffer.concat([input.subarray(0, at), bytes, input.subarray(at)]);
  for (let changes = 1 + randomInt(8); changes > 0 && input.length > 0; changes -= 1) {
    const at = randomInt(input.length);
    switch (randomInt(target.words.length > 0 ? 10 : 8)) {
      case 0:
        input[at] ^= 1 << randomInt(8);
        break;
      case 1:
        input[at] = pick(INTERESTING);
        break;
      case 2:
        input[at] = randomInt(256);
        break;
      case 3:
        input = insert(at, randomBytes(1 + randomInt(64)));
        break;
      case 4:
        input = Buffer.concat([input.subarray(0, at), input.subarray(at + 1 + randomInt(64))]);
        break;
      case 5:
        input = input.subarray(0, at);
        break;
      case 6: {
        const other = pick(corpus);
        input = Buffer.concat([input.subarray(0, at), other.subarray(randomInt(other.length + 1))]);
        break;
      }
      case 7: {
        const from = randomInt(input.length);
        input.copyWithin(at, from, Math.min(input.length, from + randomInt(1100)));
        break;
      }
      default:
        input = insert(at, Buffer.from(pick(target.words)));
    }
  }
  return input.subarray(0, MAX_SIZE);
}

let runs = 0;
let added = 0;
const end = performance.now() + Number(minutes) * 60_000;
while (performance.now() < end) {
  // Coverage is read once for several inputs; if there is new coverage, they are run again one by one.
  const inputs = Array.from({ length: 16 }, () => mutate(pick(corpus)));
  for (const input of inputs) await attempt(input);
  runs += inputs.length;
  if ((await newBlocks()).length === 0) continue;
  for (const input of inputs) {
    await attempt(input);
    if (!(await reachesNewBlocks())) continue;
    corpus.push(input);
    keep(input);
    added += 1;
  }
}
await target.close?.();
console.log(
  `${name}: ${runs} inputs in ${minutes} minutes, ${reached.size} blocks reached, ${added} inputs added, ${corpus.length} in the corpus, no failure`,
);
process.exit(0);
