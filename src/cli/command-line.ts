/**
 * The command line of either program. Commander, which takes longer to load than everything else here, is loaded only for
 * help and for a suggestion.
 */
import { ConfigError, UsageError } from "../config/config-error.ts";
import { NumberError } from "../config/numbers.ts";
import type { OptionSpec, ParsedOption, SettingValues } from "../config/option-spec.ts";
import { InvalidValueError } from "../config/option-types.ts";
import { groupOptions } from "../config/options.ts";
import { writeError } from "../daemon/observe/line-writer.ts";
import { splitArguments, type UnknownOption } from "./getopt.ts";
import { Exit } from "./run-program.ts";

/** A program, for its help and version. */
export interface Program {
  readonly name: string;
  readonly usage: string;
  readonly version: string;
}

/** The options of a table that were given. */
export interface GivenOptions<Table extends Readonly<Record<string, OptionSpec>>> {
  readonly values: Partial<SettingValues<Table>>;
  /** True if any option other than these was given. */
  readonly hasOtherThan: (...specs: readonly OptionSpec[]) => boolean;
}

/**
 * Parses a command line. Options take effect in their order: the first one that ends the program or has an invalid
 * value decides.
 *
 * @param table - the options, which include `version` and `help`.
 * @param exclusive - pairs of flags that are rejected at once if both are given.
 * @throws UsageError, ConfigError; Exit after `-v` or `-h`.
 */
export async function parseCommandLine<Table extends Readonly<Record<string, OptionSpec>>>(
  program: Program,
  table: Table,
  argv: readonly string[],
  exclusive: readonly OptionSpec[] = [],
): Promise<GivenOptions<Table>> {
  const specs = Object.values<OptionSpec>(table);
  const { options, mistake } = splitArguments(specs, argv);
  const names = new Map(Object.entries<OptionSpec>(table).map(([name, spec]) => [spec, name]));
  const values: Record<string, unknown> = {};
  const given = new Set<OptionSpec>();
  for (const option of options) {
    const { spec } = option;
    const name = names.get(spec)!;
    given.add(spec);
    if (exclusive.every((other) => given.has(other)) && exclusive.length > 0)
      throw new UsageError(`${exclusive.map(typedName).join(" and ")} cannot be used together`);
    const value = parseValue(option);
    if (spec.long === "version") printVersion(program);
    if (spec.long === "help") await printHelp(program, specs);
    const previous = values[name];
    values[name] = Array.isArray(previous) ? [...(previous as unknown[]), ...(value as unknown[])] : value;
  }
  if (mistake !== undefined) throw await toUsageError(mistake, specs);
  return {
    values: values as Partial<SettingValues<Table>>,
    hasOtherThan: (...allowed) => [...given].some((spec) => !allowed.includes(spec)),
  };
}

/** Returns an option as it is usually typed. */
export function typedName({ short, long }: OptionSpec): string {
  return short === undefined ? `--${long}` : `-${short}`;
}

/**
 * Returns the error for a required option of a table that was not given; undefined if none is missing.
 */
export function findMissing<Table extends Readonly<Record<string, OptionSpec>>>(
  table: Table,
  values: Partial<SettingValues<Table>>,
): UsageError | undefined {
  for (const [name, spec] of Object.entries<OptionSpec>(table)) {
    const { required } = spec;
    if (required !== undefined && values[name as keyof Table] === undefined)
      return new UsageError(`missing option ${typedName(spec)}: ${required}`);
  }
  return undefined;
}

/** Converts the value of an option; an invalid number for an original option is reported as Tarsnap's programs do. */
function parseValue({ spec, rawName, value }: ParsedOption): unknown {
  try {
    return spec.type.parse(value);
  } catch (error) {
    if (!(error instanceof InvalidValueError)) throw error;
    const message = `${rawName} ${error.message}`;
    if (!spec.isOriginal) throw new ConfigError([message]);
    if (!(error.cause instanceof NumberError)) throw new UsageError(message);
    throw new ConfigError([`Error parsing argument: ${rawName} ${value}: ${error.cause.message}`]);
  }
}

function printVersion({ name, version }: Program): never {
  writeError(`${name} ${version}\n`);
  throw new Exit(0);
}

async function printHelp({ usage }: Program, specs: readonly OptionSpec[]): Promise<never> {
  const { describeOptions } = await import("./help.ts");
  process.stdout.write(`${usage}\n${describeOptions(groupOptions(specs))}\n`);
  throw new Exit(0);
}

async function toUsageError(
  mistake: UsageError | UnknownOption,
  specs: readonly OptionSpec[],
): Promise<UsageError> {
  if (mistake instanceof UsageError) return mistake;
  const { rawName, argument } = mistake;
  const { suggestOption } = await import("./help.ts");
  return new UsageError(`unknown option; ${suggestOption(specs, rawName)}`, `illegal option -- ${argument}`);
}
