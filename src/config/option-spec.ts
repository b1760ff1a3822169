/** What an option is, and one that was given. */

/** One option of a program. */
export interface OptionSpec {
  /** Its letter, if the original has one. */
  readonly short?: string;
  /** Its long name, without dashes. */
  readonly long: string;
  /** Name of its value in the help text; absent for a flag. */
  readonly value?: string;
  /** May be given more than once. */
  readonly repeatable?: boolean;
  /** One or more lines for the help text. */
  readonly help: string;
}

/** An option that was met, as typed (`-k`, `--key`), and its value (empty for a flag). */
export interface Met {
  readonly spec: OptionSpec;
  readonly typed: string;
  readonly value: string;
}
