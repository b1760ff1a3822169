/** Runs worlds from the command line; `run.mjs` describes it. */
import { parseArgs } from "node:util";
import { loadEngine } from "../../src/protocol/engine/select.ts";
import { runWorld } from "./world.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    seeds: { type: "string" },
    hashes: { type: "boolean" },
  },
});
const engine = await loadEngine();
const [from = 1, to = 1000] = (values.seed ?? values.seeds ?? "1-1000").split("-").map(Number);
const start = performance.now();
let steps = 0;
let connections = 0;
let failures = 0;
for (let seed = from; seed <= (values.seed === undefined ? to : from); seed += 1) {
  const outcome = await runWorld(seed, engine, values.seed !== undefined);
  steps += outcome.steps;
  connections += outcome.connections;
  if (values.hashes) console.log(`${seed} ${outcome.hash}`);
  if (values.seed !== undefined) console.log(outcome.lines.join("\n"));
  if (outcome.violations.length === 0) continue;
  failures += 1;
  console.log(`seed ${seed}: ${outcome.violations.join("\n  ")}`);
}
const seconds = (performance.now() - start) / 1000;
console.log(`${steps} steps, ${connections} connections, ${failures} failures in ${seconds.toFixed(1)} s`);
