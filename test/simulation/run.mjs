/**
 * Runs the simulation.
 *
 *     npm run simulate -- --seed N             the world of one seed, with all its steps
 *     npm run simulate -- --seed N --shrink    the simplest scenario found that fails like that of the seed
 *     npm run simulate -- --seeds FROM-TO      the worlds of a range, 1-1000 by default
 *
 * Options: `--jobs N` processes (2 by default), `--failures N` to stop after (1 by default), `--hashes` to print a hash
 * of the steps of each world, by which runs on several versions of Node can be compared.
 */
import { parseArgs } from "node:util";
import { build, describeFailure, runSeeds } from "./runner.mjs";

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    shrink: { type: "boolean", default: false },
    seeds: { type: "string", default: "1-1000" },
    jobs: { type: "string", default: "2" },
    failures: { type: "string", default: "1" },
    hashes: { type: "boolean", default: false },
  },
});
const bundle = await build();
try {
  if (values.seed === undefined) {
    const [from, to] = values.seeds.split("-").map(Number);
    const start = performance.now();
    const { steps, connections, failures, hashes } = await runSeeds(bundle.path, from, to, {
      jobs: Number(values.jobs),
      maxFailures: Number(values.failures),
      hashes: values.hashes,
      onFailure: (seed, result) => console.log(describeFailure(seed, result)),
    });
    for (const [seed, hash] of [...hashes].sort(([a], [b]) => a - b)) console.log(`${seed} ${hash}`);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(`${steps} steps, ${connections} connections, ${failures} failures in ${seconds} s`);
    process.exitCode = failures === 0 ? 0 : 1;
  } else {
    const { lines, violations } = await bundle.run(
      Number(values.seed),
      Number(values.seed),
      values.shrink ? "shrink" : "trace",
    );
    for (const line of lines) console.log(line);
    for (const violation of violations) console.log(`violation: ${violation}`);
    process.exitCode = violations.length === 0 ? 0 : 1;
  }
} finally {
  bundle.remove();
}
