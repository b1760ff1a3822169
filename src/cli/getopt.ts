/**
 * The grammar of Tarsnap's `getopt`: combined flags (`-Fj`), attached or separate values (`-kfile`, `-k file`; a value
 * may begin with a dash), no repeated options, no operands. Long options and `--name=value` are allowed as well.
 */
import { parseArgs } from "node:util";
import { UsageError } from "../config/config-error.ts";
import type { OptionSpec, ParsedOption } from "../config/option-spec.ts";

/** A command line up to its first mistake. */
interface SplitArguments {
  readonly options: readonly ParsedOption[];
  /** The mistake after them: an error, or an unknown option; undefined if there is none. */
  readonly mistake?: UsageError | UnknownOption;
}

/** An option that the program does not have. */
export interface UnknownOption {
  /** Name as typed, without a value. */
  readonly rawName: string;
  /** The whole argument, as Tarsnap's programs name it. */
  readonly argument: string;
}

/** Splits a command line into options, in their order. */
export function splitArguments(specs: readonly OptionSpec[], argv: readonly string[]): SplitArguments {
  const config = Object.fromEntries(
    specs.map(({ long, short, value }) => [
      long,
      { type: value === undefined ? ("boolean" as const) : ("string" as const), ...(short && { short }) },
    ]),
  );
  const { tokens } = parseArgs({
    args: [...argv],
    options: config,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const options: ParsedOption[] = [];
  const stop = (mistake: UsageError | UnknownOption): SplitArguments => ({ options, mistake });
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") return stop(new UsageError(`unexpected argument: ${token.value}`));
    const spec = specs.find(({ long }) => long === token.name);
    const { rawName } = token;
    // parseArgs gives an unknown `-x` the same name as `--x`, so the name as typed must match too.
    if (spec === undefined || (rawName !== `--${spec.long}` && rawName !== `-${spec.short ?? ""}`)) {
      return stop({ rawName, argument: rawName.startsWith("--") ? argv[token.index]! : rawName });
    }
    if (spec.value === undefined && token.value !== undefined)
      return stop(new UsageError(`${rawName} takes no value`, `illegal option -- ${rawName}`));
    if (spec.value !== undefined && token.value === undefined)
      return stop(
        new UsageError(`${rawName} requires a value: ${spec.value}`, `Missing argument to ${rawName}`),
      );
    if (!spec.repeatable && options.some((other) => other.spec === spec))
      return stop(new UsageError(`${rawName} was given twice`));
    options.push({ spec, rawName, value: token.value ?? "" });
  }
  return { options };
}
