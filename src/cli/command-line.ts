/** The command line of either program, on commander. */
import { Command, CommanderError, Option } from "commander";
import { ConfigError, UsageError } from "../config/config-error.ts";
import { NumberError } from "../config/numbers.ts";
import type { OptionSpec, ParsedOption, SettingValues } from "../config/option-spec.ts";
import { InvalidValueError } from "../config/option-types.ts";
import { groupOptions } from "../config/options.ts";
import { splitArguments, type UnknownOption } from "./getopt.ts";
import { Exit } from "./run-program.ts";

/** Columns of the help text. */
const HELP_WIDTH = 80;

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
export function parseCommandLine<Table extends Readonly<Record<string, OptionSpec>>>(
  program: Program,
  table: Table,
  argv: readonly string[],
  exclusive: readonly OptionSpec[] = [],
): GivenOptions<Table> {
  const specs = Object.values<OptionSpec>(table);
  const { options, mistake } = splitArguments(specs, argv);
  const command = makeCommand(specs);
  const rawNames = options.map(({ rawName }) => rawName);
  const values: Record<string, unknown> = {};
  const given = new Set<OptionSpec>();
  for (const [name, spec] of Object.entries(table)) {
    command.on(`option:${spec.long}`, (text: string | undefined) => {
      const option = { spec, rawName: rawNames.shift()!, value: text ?? "" };
      given.add(spec);
      if (exclusive.every((other) => given.has(other)) && exclusive.length > 0)
        throw new UsageError(`${exclusive.map(typedName).join(" and ")} cannot be used together`);
      const value = parseValue(option);
      if (spec.long === "version") printVersion(program);
      if (spec.long === "help") printHelp(program, specs);
      const previous = values[name];
      values[name] = Array.isArray(previous) ? [...(previous as unknown[]), ...(value as unknown[])] : value;
    });
  }
  command.parse(options.map(toCommanderForm), { from: "user" });
  if (mistake !== undefined) throw toUsageError(mistake, command);
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

function toCommanderForm({ spec, value }: ParsedOption): string {
  return spec.value === undefined ? `--${spec.long}` : `--${spec.long}=${value}`;
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
  process.stderr.write(`${name} ${version}\n`);
  throw new Exit(0);
}

function printHelp({ usage }: Program, specs: readonly OptionSpec[]): never {
  process.stdout.write(`${usage}\n${describeOptions(specs)}\n`);
  throw new Exit(0);
}

function toUsageError(mistake: UsageError | UnknownOption, command: Command): UsageError {
  if (mistake instanceof UsageError) return mistake;
  const { rawName, argument } = mistake;
  return new UsageError(`unknown option; ${suggestion(command, rawName)}`, `illegal option -- ${argument}`);
}

/** Returns the part of the help text that lists the options, in groups. */
function describeOptions(specs: readonly OptionSpec[]): string {
  const command = makeCommand(specs);
  const helper = command.createHelp();
  helper.prepareContext({ helpWidth: HELP_WIDTH });
  helper.optionTerm = ({ short, flags }) => (short === undefined ? `    ${flags}` : flags);
  const width = helper.padWidth(command, helper);
  const options = helper.visibleOptions(command);
  return groupOptions(specs)
    .map(([group, members]) => {
      const items = members.map(({ long }) => {
        const option = options.find((candidate) => candidate.long === `--${long}`)!;
        return helper.formatItem(helper.optionTerm(option), width, helper.optionDescription(option), helper);
      });
      return [`${group}:`, ...items].join("\n");
    })
    .join("\n\n");
}

/** Returns a command that throws CommanderError instead of printing and exiting. */
function makeCommand(specs: readonly OptionSpec[]): Command {
  const command = new Command()
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .helpOption(false);
  for (const { short, long, value, help } of specs) {
    const letter = short === undefined ? "" : `-${short}, `;
    const argument = value === undefined ? "" : ` <${value}>`;
    command.addOption(new Option(`${letter}--${long}${argument}`, help));
  }
  return command;
}

/** Returns what to do about an unknown option: commander's suggestion, if it has one. */
function suggestion(command: Command, rawName: string): string {
  try {
    command.parse([rawName], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    const similar = /\(Did you mean (.*)\?\)/.exec(error.message)?.[1];
    if (similar !== undefined) return `did you mean ${similar}?`;
  }
  return "-h lists all options";
}
