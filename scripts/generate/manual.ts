/** The option sections of the manual pages, in mdoc. */
import type { OptionSpec } from "../../src/config/option-spec.ts";
import { groupOptions, KEY_COMMANDS, type KeyCommandSpec } from "../../src/config/options.ts";
import { PROGRAMS } from "./programs.ts";

/** Names of values that the help text abbreviates. */
const VALUE_NAMES: Readonly<Record<string, string>> = { ADDR: "address", N: "number" };

/** Returns a subsection for each group of a program's options. */
export function optionSection(program: keyof typeof PROGRAMS): string {
  return groupOptions(PROGRAMS[program])
    .flatMap(([group, specs]) => [
      `.Ss ${group}`,
      ".Bl -tag -width Ds",
      ...specs.flatMap((spec) => [`.It ${optionTerm(spec)}`, ...spec.manual]),
      ".El",
    ])
    .map((line) => `${line}\n`)
    .join("");
}

/** Returns the list of the commands of `spiped keys`. */
export function keyCommandSection(): string {
  return Object.entries<KeyCommandSpec>(KEY_COMMANDS)
    .flatMap(([name, { operand, manual }]) => [
      `.It Cm keys ${name} Ar directory${operand === undefined ? "" : ` Ar ${operand.forms.join(" | ")}`}`,
      ...manual,
    ])
    .map((line) => `${line}\n`)
    .join("");
}

function optionTerm({ short, long, value, type }: OptionSpec): string {
  const letter = short === undefined ? "" : `${short} , `;
  const words = Array.isArray(type.completion) ? `Cm ${type.completion.join(" | ")}` : undefined;
  const name = value === undefined ? undefined : `Ar ${VALUE_NAMES[value] ?? value.toLowerCase()}`;
  const argument = value === undefined ? undefined : (type.argument ?? words ?? name);
  return `Fl ${letter}-${long}${argument === undefined ? "" : ` ${argument}`}`;
}
