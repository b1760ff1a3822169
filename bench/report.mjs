/** Makes the table of a run, the list of missed goals and the contents of the results file. */
import { spawnSync } from "node:child_process";
import { cpus, release, totalmem } from "node:os";
import { settings } from "./settings.mjs";
import { spread } from "./statistics.mjs";

export const HEADER = "measured | ours | C | others | ratio | goal\n--- | --- | --- | --- | --- | ---";

const format = (value) => {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : 2);
};
const show = ({ median, lowest, highest }) =>
  lowest === highest ? format(median) : `${format(median)} (${format(lowest)} to ${format(highest)})`;

/** A program's version: the first line of what it prints. */
function version(command, ...args) {
  const { stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  return `${stdout ?? ""}${stderr ?? ""}`.trim().split("\n")[0];
}

/** Returns what identifies a run. */
export function describeRun() {
  return {
    date: new Date().toISOString(),
    machine: {
      processor: cpus()[0].model,
      cores: cpus().length,
      memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
      kernel: release(),
    },
    versions: {
      node: version(settings.node, "--version"),
      spiped: version("spiped", "-v"),
      stunnel: version("dpkg-query", "-W", "-f", "${Package} ${Version}", "stunnel4"),
    },
    rounds: settings.rounds,
    size: settings.size,
    rows: {},
  };
}

/** Describes a goal and its reference. */
function goalText(goal, against) {
  if (goal === undefined) return "";
  const limit = `${goal.sign} ${goal.limit}`;
  return goal.of === "ratio" && against !== undefined ? `${limit} × ${against}` : limit;
}

/** Summarizes the results of a row: a figure for each of its fields, by its name in the results file. */
export function summarize(row, results) {
  const [subject, second] = row.kinds;
  const reference = row.against ?? second;
  return Object.fromEntries(
    row.figures.map(({ field = "value", title, unit, goal }) => {
      const figures = Object.fromEntries(
        row.kinds.map((kind) => [kind, spread(results[kind].map((result) => result[field]))]),
      );
      const ratios = results[subject].map((result, i) => result[field] / results[reference][i][field]);
      const ratio = ratios.every(Number.isFinite) ? spread(ratios) : undefined;
      const name = field === row.figures[0].field || field === "value" ? row.name : `${row.name}-${field}`;
      return [name, { title, unit, kinds: row.kinds, figures, ratio, goal, against: row.against }];
    }),
  );
}

/** Returns a figure's line of the table. */
export function formatLine({ title, unit, kinds, figures, ratio, goal, against }) {
  const [subject, second, ...others] = kinds;
  return [
    `${title}, ${unit}`,
    show(figures[subject]),
    show(figures[second]),
    others.map((kind) => `${kind} ${show(figures[kind])}`).join(", "),
    ratio === undefined ? "" : show(ratio),
    goalText(goal, against),
  ].join(" | ");
}

/** Returns the goals that a run missed and met, and those it did not measure. */
export function formatGoals(rows) {
  const lines = [];
  let count = 0;
  for (const { title, kinds, figures, ratio, goal, against } of Object.values(rows)) {
    const reached = goal?.of === "ratio" ? ratio?.median : figures[kinds[0]].median;
    if (goal === undefined || reached === undefined) continue;
    count += 1;
    if (goal.sign === "≥" ? reached >= goal.limit : reached <= goal.limit) continue;
    lines.push(`- ${title.trim()}: ${format(reached)} instead of ${goalText(goal, against)}`);
  }
  return [`goals missed: ${lines.length} of ${count} measured`, ...lines].join("\n");
}
