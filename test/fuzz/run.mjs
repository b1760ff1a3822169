/**
 * A coverage-guided fuzzer: mutates a corpus and keeps inputs that reach new blocks of src/protocol, by V8's coverage.
 *
 *     node test/fuzz/run.mjs [MINUTES]        default 1
 *
 * Inputs that reach new blocks are added to test/fuzz/corpus. An input that makes the target throw is written to
 * test/fuzz/crash-*, and the run exits with 1.
 */
import { createHash, randomBytes, randomInt } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { makeTarget, seeds } from "./target.mjs";

const minutes = Number(process.argv[2] ?? 1);
const root = fileURLToPath(new URL("../..", import.meta.url));
const corpusDirectory = join(root, "test/fuzz/corpus");
const directory = mkdtempSync(join(tmpdir(), "spiped-fuzz-"));
const bundle = join(directory, "protocol.mjs");
await build({
  entryPoints: [join(root, "test/fuzz/protocol.ts")],
  bundle: true,
  platform: "node",
  format: "esm",
  outfile: bundle,
  packages: "bundle",
});
const url = pathToFileURL(bundle).href;
const session = new Session();
session.connect();
await session.post("Profiler.enable");
await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
const protocol = await import(url);
rmSync(directory, { recursive: true });
const target = makeTarget(protocol);

/** Blocks of our code that have run, classified by execution count. */
const reached = new Set();
async function reachesNewBlocks() {
  const { result } = await session.post("Profiler.takePreciseCoverage");
  let fresh = false;
  for (const script of result) {
    if (script.url !== url) continue;
    for (const { functionName, ranges } of script.functions) {
      for (const { startOffset, count } of ranges) {
        if (count === 0) continue;
        const block = `${functionName}:${startOffset}:${Math.min(3, Math.floor(Math.log2(count)))}`;
        if (!reached.has(block)) {
          reached.add(block);
          fresh = true;
        }
      }
    }
  }
  return fresh;
}

const corpus = [
  ...seeds(protocol),
  ...readdirSync(corpusDirectory).map((name) => readFileSync(join(corpusDirectory, name))),
];

function keep(input, where = corpusDirectory) {
  const name = createHash("sha256").update(input).digest("hex").slice(0, 16);
  writeFileSync(join(where, name), input);
  return name;
}

function attempt(input) {
  try {
    target(input);
  } catch (error) {
    console.error(`crash-${keep(input, join(root, "test/fuzz"))}: ${error.stack}`);
    process.exit(1);
  }
}

for (const input of corpus) attempt(input);
await reachesNewBlocks();

const pick = (list) => list[randomInt(list.length)];
const INTERESTING = [0, 1, 0x7f, 0x80, 0xff];

/** Returns a copy with one to eight small changes. */
function mutate(original) {
  let input = Buffer.from(original);
  for (let changes = 1 + randomInt(8); changes > 0 && input.length > 0; changes -= 1) {
    const at = randomInt(input.length);
    switch (randomInt(8)) {
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
        input = Buffer.concat([input.subarray(0, at), randomBytes(1 + randomInt(64)), input.subarray(at)]);
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
      default: {
        const from = randomInt(input.length);
        input.copyWithin(at, from, Math.min(input.length, from + randomInt(1100)));
      }
    }
  }
  return input.subarray(0, 8192);
}

let runs = 0;
let kept = 0;
const end = performance.now() + minutes * 60_000;
while (performance.now() < end) {
  // Coverage is read once for several inputs; if there is new coverage, they are run again one by one.
  const inputs = Array.from({ length: 16 }, () => mutate(pick(corpus)));
  for (const input of inputs) attempt(input);
  runs += inputs.length;
  const before = new Set(reached);
  if (!(await reachesNewBlocks())) continue;
  reached.clear();
  for (const block of before) reached.add(block);
  for (const input of inputs) {
    attempt(input);
    if (!(await reachesNewBlocks())) continue;
    corpus.push(input);
    keep(input);
    kept += 1;
  }
}
console.log(
  `${runs} inputs in ${minutes} minutes, ${reached.size} blocks reached, ${kept} inputs kept, ${corpus.length} in the corpus, no failure`,
);
process.exit(0);
