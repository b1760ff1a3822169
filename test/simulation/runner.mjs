/** Bundles the simulation and runs it in processes of its own: a world that fails may leave the modules in disorder. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build as esbuild } from "esbuild";

/** Steps before a failure that are printed. */
const SHOWN_STEPS = 60;
/** Seeds that a process runs, at most. */
const BATCH = 500;
/** Maximum time of a process, in ms. */
const TIMEOUT_MS = 10 * 60_000;

/** Bundles the simulation into a temporary file. */
export async function build() {
  const directory = mkdtempSync(join(tmpdir(), "spiped-simulation-"));
  const path = join(directory, "run.mjs");
  await esbuild({
    entryPoints: [fileURLToPath(new URL("run.ts", import.meta.url))],
    bundle: true,
    platform: "node",
    format: "esm",
    outfile: path,
    sourcemap: "inline",
  });
  return {
    path,
    run: (from, to, option) => run(path, from, to, option),
    remove: () => rmSync(directory, { recursive: true }),
  };
}

async function run(path, from, to, option = "") {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--enable-source-maps", path, String(from), String(to), option],
    { maxBuffer: 2 ** 30, timeout: TIMEOUT_MS, killSignal: "SIGKILL" },
  );
  return JSON.parse(stdout);
}

/** Runs the worlds of a range of seeds in several processes, and those that fail again with all steps. */
export async function runSeeds(path, from, to, { jobs, maxFailures, hashes: wantsHashes, onFailure }) {
  const total = { steps: 0, connections: 0, failures: 0, hashes: new Map() };
  let next = from;
  const work = async () => {
    while (next <= to && total.failures < maxFailures) {
      const start = next;
      const end = Math.min(to, start + BATCH - 1);
      next = end + 1;
      await runBatch(start, end);
    }
  };
  const runBatch = async (start, end) => {
    for (let seed = start; seed <= end && total.failures < maxFailures; ) {
      const result = await run(path, seed, end, wantsHashes ? "hashes" : "");
      result.hashes.forEach((hash, index) => total.hashes.set(seed + index, hash));
      total.steps += result.steps;
      total.connections += result.connections;
      seed = result.next;
      if (result.violations.length === 0) continue;
      total.failures += 1;
      onFailure(seed - 1, await run(path, seed - 1, seed - 1, "trace"));
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return total;
}

/** Returns what was wrong in a world, and its last steps. */
export function describeFailure(seed, { violations, lines }) {
  return [
    `seed ${seed}:`,
    ...(violations.length === 0 ? ["it fails only after the worlds before it"] : violations),
    ...lines.slice(-SHOWN_STEPS),
    `all steps: npm run simulate -- --seed ${seed}`,
  ].join("\n  ");
}
