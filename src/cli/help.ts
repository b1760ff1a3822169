/** What commander does for the programs: the list of options for `-h`, and a suggestion for an unknown option. */
import { Command, CommanderError, Option } from "commander";
import type { OptionSpec } from "../config/option-spec.ts";

/** Columns of the help text. */
const HELP_WIDTH = 80;

/**
 * Returns the part of the help text that lists the options.
 *
 * @param groups - the options, by heading.
 */
export function describeOptions(groups: readonly (readonly [string, readonly OptionSpec[]])[]): string {
  const command = makeCommand(groups.flatMap(([, members]) => members));
  const helper = command.createHelp();
  helper.prepareContext({ helpWidth: HELP_WIDTH });
  helper.optionTerm = ({ short, flags }) => (short === undefined ? `    ${flags}` : flags);
  const width = helper.padWidth(command, helper);
  const options = helper.visibleOptions(command);
  return groups
    .map(([group, members]) => {
      const items = members.map(({ long }) => {
        const option = options.find((candidate) => candidate.long === `--${long}`)!;
        return helper.formatItem(helper.optionTerm(option), width, helper.optionDescription(option), helper);
      });
      return [`${group}:`, ...items].join("\n");
    })
    .join("\n\n");
}

/**
 * Returns what to do about an unknown option: commander's suggestion, if it has one.
 *
 * @param rawName - the option as typed, without a value.
 */
export function suggestOption(specs: readonly OptionSpec[], rawName: string): string {
  try {
    makeCommand(specs).parse([rawName], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    const similar = /\(Did you mean (.*)\?\)/.exec(error.message)?.[1];
    if (similar !== undefined) return `did you mean ${similar}?`;
  }
  return "-h lists all options";
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
