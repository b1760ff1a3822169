/** Types for command-line options. */

/** One option of a program. */
export interface OptionSpec {
  /** Letter; undefined if Tarsnap's programs do not have the option. */
  readonly short?: string;
  /** Long name, without dashes. */
  readonly long: string;
  /** Name of the value in the help text; undefined for a flag. */
  readonly value?: string;
  /** True if the option may be given more than once. */
  readonly repeatable?: boolean;
  /** Heading of the group that lists the option in the help text. */
  readonly group: string;
  readonly help: string;
}

/** An option on the command line. */
export interface ParsedOption {
  readonly spec: OptionSpec;
  /** Name as typed, such as `-k` or `--key`. */
  readonly rawName: string;
  /** Value; empty for a flag. */
  readonly value: string;
}
