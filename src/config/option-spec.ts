/** Types of the rows of the option table. */
import type { OptionType } from "./option-types.ts";

/** A setting of a tunnel, of the process, or of one client's keys. */
export interface SettingSpec<Value = unknown> {
  /** Long name of the option, without dashes, and name of the field in TOML. */
  readonly long: string;
  readonly type: OptionType<Value>;
  /** Value if the setting is not given; undefined if it then has no effect. */
  readonly default?: Value;
  /** What the setting is for, if it must be given. */
  readonly required?: string;
  /** One line for `-h`, the completions and the reference. */
  readonly help: string;
  /** Text of the manual page, in lines of mdoc. */
  readonly manual: readonly string[];
  /** Version in which the setting appeared; undefined for the first version. */
  readonly since?: string;
}

/** One option of a program. */
export interface OptionSpec<Value = unknown> extends SettingSpec<Value> {
  readonly short?: string;
  /** Name of the value in the help text; undefined for a flag. */
  readonly value?: string;
  /** True if the option may be given more than once. */
  readonly repeatable?: boolean;
  /** Long name of the option that must not be given as well. */
  readonly excludes?: string;
  /** Heading of the group that lists the option in the help text. */
  readonly group: string;
  /** True if Tarsnap's programs have the option, with its letter or, without one, with its long name. */
  readonly isOriginal?: boolean;
}

/** An option on the command line. */
export interface ParsedOption {
  readonly spec: OptionSpec;
  /** Name as typed, such as `-k` or `--key`. */
  readonly rawName: string;
  /** Value; empty for a flag. */
  readonly value: string;
}

/** Type of a setting's value: `undefined` is included unless the setting is required or has a default. */
type SettingValue<Spec extends SettingSpec> = Spec extends { readonly type: OptionType<infer Value> }
  ? Spec extends { readonly required: string } | { readonly default: Value }
    ? Value
    : Value | undefined
  : never;

/** Values of the settings of a table, by the names of its rows. */
export type SettingValues<Table extends Readonly<Record<string, SettingSpec>>> = {
  readonly [Name in keyof Table]: SettingValue<Table[Name]>;
};

/**
 * Adds the defaults of a table to the values that were given.
 *
 * The caller must have checked that the required settings were given.
 */
export function withDefaults<Table extends Readonly<Record<string, SettingSpec>>>(
  table: Table,
  given: Partial<SettingValues<Table>>,
): SettingValues<Table> {
  const values = Object.entries(table).map(([name, spec]) => [
    name,
    given[name as keyof Table] ?? spec.default,
  ]);
  return Object.fromEntries(values) as SettingValues<Table>;
}
