/** Runs the worlds of a range of seeds in this process, for `run.mjs`, until one fails. Prints one line of JSON. */

import { inspect } from "node:util";
import { loadEngine } from "../../src/protocol/engine/select.ts";
import { runSeed, shrinkSeed } from "./run-seed.ts";

const [from, to, option] = process.argv.slice(2) as [string, string, string | undefined];
const engine = await loadEngine();
const result = {
  next: Number(from),
  steps: 0,
  connections: 0,
  hashes: [] as string[],
  lines: [] as readonly string[],
  violations: [] as readonly string[],
};
while (result.next <= Number(to) && result.violations.length === 0) {
  const outcome = await runSeed(result.next, engine, option === "trace");
  result.next += 1;
  result.steps += outcome.steps;
  result.connections += outcome.connections;
  if (option === "hashes") result.hashes.push(outcome.hash);
  result.lines = outcome.lines;
  result.violations = outcome.violations;
}
if (option === "shrink") {
  result.lines = inspect(await shrinkSeed(Number(from), engine), { depth: 9, maxArrayLength: null }).split(
    "\n",
  );
}
process.stdout.write(`${JSON.stringify(result)}\n`);
