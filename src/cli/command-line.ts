/** The command line of either program, on commander. */
import { Command, CommanderError, Option } from "commander";
import { UsageError } from "../config/config-error.ts";
import type { OptionSpec, ParsedOption } from "../config/option-spec.ts";
import { splitArguments } from "./getopt.ts";

/** Columns of the help text. */
const HELP_WIDTH = 80;

/**
 * Parses a command line.
 *
 * @param visit called with each option in the order of the command line, so that the first option that ends the program
 * or has an invalid value decides.
 * @throws UsageError at the first argument that the grammar does not allow, and what `visit` throws.
 */
export function parseCommandLine(
  specs: readonly OptionSpec[],
  argv: readonly string[],
  visit: (option: ParsedOption) => void,
): void {
  const { options, mistake } = splitArguments(specs, argv);
  const command = makeCommand(specs);
  const names = options.map(({ rawName }) => rawName);
  for (const spec of specs) {
    command.on(`option:${spec.long}`, (value: string | undefined) => {
      visit({ spec, rawName: names.shift()!, value: value ?? "" });
    });
  }
  const args = options.map(({ spec, value }) =>
    spec.value === undefined ? `--${spec.long}` : `--${spec.long}=${value}`,
  );
  command.parse(args, { from: "user" });
  if (mistake === undefined) return;
  if (mistake instanceof UsageError) throw mistake;
  const { rawName, argument } = mistake;
  throw new UsageError(`no such option; ${suggestion(command, rawName)}`, `illegal option -- ${argument}`);
}

/** Returns the part of the help text that lists the options, in groups. */
export function describeOptions(specs: readonly OptionSpec[]): string {
  const command = makeCommand(specs);
  const helper = command.createHelp();
  helper.prepareContext({ helpWidth: HELP_WIDTH });
  helper.optionTerm = ({ short, flags }) => (short === undefined ? `    ${flags}` : flags);
  const width = helper.padWidth(command, helper);
  const groups = helper.groupItems(
    [...command.options],
    helper.visibleOptions(command),
    ({ helpGroupHeading }) => helpGroupHeading ?? "",
  );
  return [...groups]
    .map(([heading, options]) => {
      const items = options.map((option) =>
        helper.formatItem(helper.optionTerm(option), width, helper.optionDescription(option), helper),
      );
      return [heading, ...items].join("\n");
    })
    .join("\n\n");
}

/** Returns a command that throws CommanderError instead of printing and exiting. */
function makeCommand(specs: readonly OptionSpec[]): Command {
  const command = new Command()
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .helpOption(false);
  for (const { short, long, value, group, help } of specs) {
    const letter = short === undefined ? "" : `-${short}, `;
    const argument = value === undefined ? "" : ` <${value}>`;
    command.addOption(new Option(`${letter}--${long}${argument}`, help).helpGroup(group));
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
