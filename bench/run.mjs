/**
 * Measures this implementation and Tarsnap's spiped alternately in one run: `npm run bench`.
 *
 *     --quick          fewer and shorter measurements, about two minutes in all; the programs keep their order
 *     --rows A,B       only these rows
 *     --rounds N       rounds of each row (default 5, with --quick 1); the programs alternate in each round
 *     --node PATH      Node executable for our programs
 *     --dist PATH      another build of our programs, to compare with; nothing is written
 *     --no-write       do not write bench/results and, if all rows were measured on this day, docs/
 *
 * Figures are medians over the rounds, with the minimum and maximum; ratios are medians of each round's ratio to the C
 * pair. A row that warms its programs up says so in its title. There are no thresholds: the last column is the goal, and
 * the end of the output lists the goals that were missed. The exit status is 0 unless data was lost or changed.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { formatCapacity } from "./capacity.mjs";
import { drawChart } from "./chart.mjs";
import { endLoad } from "./load-process.mjs";
import { logFile, SPIPED } from "./pairs.mjs";
import { which } from "./processes.mjs";
import {
  describeRun,
  formatGoals,
  formatLine,
  formatResults,
  HEADER,
  replaceGenerated,
  summarize,
} from "./report.mjs";
import { ROWS } from "./rows.mjs";
import { endServices, missingProgram } from "./services.mjs";
import { settings } from "./settings.mjs";

/** Attempts at one measurement: Tarsnap's daemons sometimes reset connections of many clients. */
const ATTEMPTS = 5;
/** Time after which a measurement is not repeated, ms. */
const ATTEMPTS_TIMEOUT = 60_000;

function fail(message) {
  console.error(message);
  process.exit(1);
}

if (which("spiped") === undefined) fail("Tarsnap's spiped is not installed: apt-get install spiped");
if (!existsSync(SPIPED)) fail("the programs are not built: npm run build");
const names = ROWS.map(({ name }) => name);
for (const name of settings.rows ?? []) {
  if (!names.includes(name)) fail(`unknown row ${name}; the rows are ${names.join(", ")}`);
}

/** Measures one program once; repeats a measurement that fails. */
async function attempt(measure, kind) {
  const start = performance.now();
  for (let failures = 0; ; ) {
    try {
      return await measure(kind);
    } catch (error) {
      failures += 1;
      if (failures === ATTEMPTS || performance.now() - start > ATTEMPTS_TIMEOUT) throw error;
    }
  }
}

/** Measures a row: in each round all programs, in alternating order. */
async function runRow({ kinds, measure }) {
  const results = Object.fromEntries(kinds.map((kind) => [kind, []]));
  for (let round = 0; round < settings.rounds; round += 1) {
    const order = round % 2 === 0 ? kinds : [...kinds].reverse();
    for (const kind of order) results[kind].push(await attempt(measure, kind));
  }
  return results;
}

const report = describeRun();
const { machine, versions } = report;
console.log(`${machine.processor}, ${machine.cores} cores; Node ${versions.node}; ${versions.spiped}`);
console.log(HEADER);
for (const row of ROWS.filter(({ name }) => settings.rows?.includes(name) ?? true)) {
  const missing = missingProgram(row.service);
  if (missing !== undefined) {
    console.log(`${row.figures[0].title}: skipped, because ${missing} is not installed`);
    continue;
  }
  try {
    const figures = summarize(row, await runRow(row));
    Object.assign(report.rows, figures);
    for (const figure of Object.values(figures)) console.log(formatLine(figure));
  } catch (error) {
    console.log(`${row.figures[0].title}: not measured: ${error.message}`);
    console.error(readFileSync(logFile, "utf8").trim().split("\n").slice(-5).join("\n"));
  }
}
console.log(`\n${formatGoals(report.rows)}`);
await Promise.all([endLoad(), endServices()]);

if (settings.write) {
  mkdirSync("bench/results", { recursive: true });
  const major = versions.node.replace(/^v(\d+).*/, "$1");
  const file = `bench/results/${report.date.slice(0, 10)}-node${major}.json`;
  // Rows that are not measured in this run keep the results from earlier that day.
  const earlier = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
  const whole = { ...earlier, ...report, rows: { ...earlier.rows, ...report.rows } };
  writeFileSync(file, `${JSON.stringify(whole, null, 2)}\n`);
  // The documentation has the results of all rows or is left alone.
  const isComplete = ROWS.every(({ name, service }) => whole.rows[name] ?? missingProgram(service));
  if (settings.isOwnNode && isComplete) {
    writeFileSync("docs/performance.svg", drawChart(whole));
    for (const [page, text] of [
      ["docs/performance.md", formatResults(whole)],
      ["docs/scale.md", formatCapacity(whole)],
    ]) {
      writeFileSync(page, replaceGenerated(readFileSync(page, "utf8"), text));
    }
  }
  console.log(`written: ${file}`);
}
process.exit(0);
