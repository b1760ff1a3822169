/**
 * Parses the command line with the grammar of Tarsnap's `getopt`: combined flags (`-Fj`), attached or separate values
 * (`-kfile`, `-k file`; a value may begin with a dash), no repeated options, no operands. Long names are an addition.
 *
 * Node's `parseArgs` splits the arguments into tokens. They are processed in order because the first one that ends the
 * program decides: `-x -v` is an error, `-v -x` prints the version.
 */
import { parseArgs } from "node:util";
import { UsageError } from "../config/config-error.ts";
import type { OptionSpec, ParsedOption } from "../config/option-spec.ts";

/**
 * Yields the options in the order of the command line.
 *
 * @throws UsageError at the first argument that the grammar does not allow.
 */
export function* readOptions(specs: readonly OptionSpec[], argv: readonly string[]): Generator<ParsedOption> {
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
    const { rawName } = token;
    const isFlag = spec?.value === undefined;
    // parseArgs gives an unknown `-x` the same name as `--x`, so the name as typed must match too.
    const known = spec !== undefined && (rawName === `--${spec.long}` || rawName === `-${spec.short}`);
    if (!known || (isFlag && token.value !== undefined)) {
      if (known) throw new UsageError("this option takes no value", `illegal option -- ${rawName}`);
      const whole = rawName.startsWith("--") ? argv[token.index]! : rawName;
      throw new UsageError(unknownOption(specs, rawName), `illegal option -- ${whole}`);
    }
    if (!isFlag && token.value === undefined) {
      throw new UsageError(`${rawName} needs a value: ${spec.value}`, `Missing argument to ${rawName}`);
    }
    if (seen.has(spec) && !spec.repeatable) throw new UsageError(`${rawName} was given twice`);
    seen.add(spec);
    yield { spec, rawName, value: token.value ?? "" };
  }
}

/** Returns the hint for an unknown option, which is named in the line before the usage text. */
function unknownOption(specs: readonly OptionSpec[], rawName: string): string {
  const nearest = rawName.startsWith("--") ? nearestName(specs, rawName.slice(2)) : undefined;
  return `no such option; ${nearest === undefined ? "-h lists all options" : `did you mean --${nearest}?`}`;
}

/** Returns the long name most similar to `typed`; undefined if none is similar enough. */
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

/** Returns the Levenshtein distance: the number of characters to insert, remove or replace. */
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

/** Returns the part of the help text that lists the options. */
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
