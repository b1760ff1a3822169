/** Makes the table of a run and the list of missed goals, for the terminal and for docs/performance.md. */
import { spawnSync } from "node:child_process";
import { cpus, release, totalmem } from "node:os";
import { settings } from "./settings.mjs";
import { spread } from "./statistics.mjs";

export const HEADER = "measured | ours | C | others | ratio | goal\n--- | --- | --- | --- | --- | ---";

/** What a run replaces in a page. */
const GENERATED = /(<!-- written by npm run bench -->\n)[^]*?(\n<!-- end -->)/;

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
  const [first, second] = row.kinds;
  const reference = row.against ?? second;
  return Object.fromEntries(
    row.figures.map(({ field = "value", title, unit, goal }) => {
      const figures = Object.fromEntries(
        row.kinds.map((kind) => [kind, spread(results[kind].map((result) => result[field]))]),
      );
      const ratios = results[first].map((result, i) => result[field] / results[reference][i][field]);
      const ratio = ratios.every(Number.isFinite) ? spread(ratios) : undefined;
      const name = field === row.figures[0].field || field === "value" ? row.name : `${row.name}-${field}`;
      // An indented title belongs to the first one.
      const subject = title.startsWith(" ") ? `${row.figures[0].title}: ${title.trim()}` : title;
      return [name, { title, subject, unit, kinds: row.kinds, figures, ratio, goal, against: row.against }];
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

/** Lists the goals that a run has missed. */
export function formatGoals(rows) {
  const lines = [];
  let count = 0;
  for (const { subject, kinds, figures, ratio, goal, against } of Object.values(rows)) {
    const reached = goal?.of === "ratio" ? ratio?.median : figures[kinds[0]].median;
    if (goal === undefined || reached === undefined) continue;
    count += 1;
    if (goal.sign === "≥" ? reached >= goal.limit : reached <= goal.limit) continue;
    lines.push(`- ${subject}: ${format(reached)} instead of ${goalText(goal, against)}`);
  }
  return [`goals missed: ${lines.length} of ${count} measured`, ...lines].join("\n");
}

/** Returns the part of docs/performance.md that has the results of a run. */
export function formatResults({ date, machine, versions, rounds, rows }) {
  const programs = [`Node ${versions.node}`, versions.spiped, versions.stunnel].filter(Boolean).join(", ");
  return `
## ${date.slice(0, 10)}, ${machine.processor}, ${machine.cores} cores

${programs}; medians of ${rounds} rounds.

${HEADER.replaceAll(/^|$/gm, "|")}
${Object.values(rows)
  .map((figure) => `|${formatLine(figure)}|`)
  .join("\n")}

${formatGoals(rows)
  .replace("\n", "\n\n")
  .replace(/^goals missed/, "Goals missed")}
`;
}

/** Returns a page with its generated part replaced. */
export const replaceGenerated = (page, text) =>
  page.replace(GENERATED, (_, start, stop) => start + text + stop);
