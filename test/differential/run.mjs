/**
 * Differential test: the same connections to Tarsnap's spiped, to ours and, for -d, to an independent
 * implementation, whose results are compared.
 *
 *     npm run differential -- [--cases N] [--seed S] [--case I]      default: 1000 cases of a random seed
 *
 * Exits with 1 if a difference is not one of those in the README's table.
 */
import { randomInt } from "node:crypto";
import { parseArgs } from "node:util";
import { importTypeScript } from "../support/import-typescript.mjs";

const { values } = parseArgs({
  options: { cases: { type: "string" }, seed: { type: "string" }, case: { type: "string" } },
});
const seed = Number(values.seed ?? randomInt(2 ** 31));
const count = Number(values.cases ?? 1000);
const numbers =
  values.case === undefined ? Array.from({ length: count }, (_, i) => i) : [Number(values.case)];

const { module } = await importTypeScript("test/differential/differential.ts");
let done = 0;
const start = performance.now();
const { cases, repeated, classes, failures } = await module.runCases({
  seed,
  cases: numbers,
  onCase: () => {
    done += 1;
    if (done % 1000 === 0) console.log(`${done} cases`);
  },
});
for (const failure of failures) console.error(failure);
const seconds = Math.round((performance.now() - start) / 1000);
console.log(
  `seed ${seed}: ${cases} cases in ${seconds} s, ${repeated} repetitions, ${failures.length} failures`,
);
for (const [name, { cases: all, same }] of [...classes].sort(([a], [b]) => (a < b ? -1 : 1)))
  console.log(`  ${name}: ${all} cases, ${same} with the same result`);
process.exit(failures.length === 0 ? 0 : 1);
