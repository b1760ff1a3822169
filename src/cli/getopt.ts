/**
 * The grammar of the command line, as the original's `getopt` has it: packed flags (`-Fj`), values attached or next
 * (`-kfile`, `-k file`; a value may begin with a dash), no option twice, and no other arguments. Long names are ours.
 *
 * Node's `parseArgs` cuts the arguments into tokens; this file walks them in order, because what is met first decides:
 * `-x -v` is an error, `-v -x` prints the version.
 */
import { parseArgs } from "node:util";
import { UsageError } from "../config/config-error.ts";
import type { Met, OptionSpec } from "../config/option-spec.ts";

/**
 * Yields the options in the order of the command line.
 *
 * @throws UsageError when it meets what the grammar does not allow.
 */
export function* readOptions(specs: readonly OptionSpec[], argv: readonly string[]): Generator<Met> {
  const options = Object.fromEntries(
    specs.map(({ long, short, value }) => [
      long,
      { type: value === undefined ? ("boolean" as const) : ("string" as const), ...(short && { short }) },
    ]),
  );
  const { tokens } = parseArgs({
    args: [...argv],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const seen = new Set<OptionSpec>();
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") throw new UsageError(`unexpected argument: ${token.value}`);
    const spec = specs.find(({ long }) => long === token.name);
    const typed = token.rawName;
    const isFlag = spec?.value === undefined;
    // `--v` is not `-v`: an unknown name of one letter has the name that parseArgs gives to a known letter.
    const known = spec !== undefined && (typed === `--${spec.long}` || typed === `-${spec.short}`);
    if (!known || (isFlag && token.value !== undefined)) {
      if (known) throw new UsageError("this option takes no value", `illegal option -- ${typed}`);
      const whole = typed.startsWith("--") ? argv[token.index]! : typed;
      throw new UsageError(unknownOption(specs, typed), `illegal option -- ${whole}`);
    }
    if (!isFlag && token.value === undefined) {
      throw new UsageError(`${typed} needs a value: ${spec.value}`, `Missing argument to ${typed}`);
    }
    if (seen.has(spec) && !spec.repeatable) throw new UsageError(`${typed} was given twice`);
    seen.add(spec);
    yield { spec, typed, value: token.value ?? "" };
  }
}

/** What to say of an unknown option, which the line before the usage text has named. */
function unknownOption(specs: readonly OptionSpec[], typed: string): string {
  const nearest = typed.startsWith("--") ? nearestName(specs, typed.slice(2)) : undefined;
  return `no such option; ${nearest === undefined ? "-h lists all options" : `did you mean --${nearest}?`}`;
}

/** The long name that was most likely meant, if one is near. */
function nearestName(specs: readonly OptionSpec[], typed: string): string | undefined {
  const names = specs.map(({ long }) => long);
  const completions = typed.length > 1 ? names.filter((name) => name.startsWith(typed)) : [];
  if (completions.length === 1) return completions[0];
  const [nearest] = names
    .map((name) => ({ name, distance: editDistance(name, typed) }))
    .filter(({ name, distance }) => distance <= name.length / 3)
    .sort((one, other) => one.distance - other.distance);
  return nearest?.name;
}

/** How many characters to insert, remove or replace to make one word of another (Levenshtein). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let i = 0; i < from.length; i += 1) {
    const next = [i + 1];
    for (let j = 0; j < to.length; j += 1) {
      const replaced = row[j]! + (from[i] === to[j] ? 0 : 1);
      next.push(Math.min(replaced, row[j + 1]! + 1, next[j]! + 1));
    }
    row = next;
  }
  return row.at(-1)!;
}

/** The options' part of the help text: letters, long names, and what they do. */
export function describeOptions(specs: readonly OptionSpec[]): string {
  const rows = specs.map(({ short, long, value, help }) => {
    const letter = short === undefined ? "    " : `-${short}, `;
    return [`  ${letter}--${long}${value === undefined ? "" : ` ${value}`}`, help.split("\n")] as const;
  });
  const width = Math.max(...rows.map(([names]) => names.length)) + 2;
  return rows
    .flatMap(([names, lines]) =>
      lines.map((line, i) => (i === 0 ? names.padEnd(width) : " ".repeat(width)) + line),
    )
    .join("\n");
}
