/** What a user has asked for and can't be done. */
import { SpipedError } from "../errors.ts";

/** A file, an option's value or an address that can't be used, or a step of the start that failed; the exit status is 1. */
export class ConfigError extends SpipedError {
  /** One line for each thing that is wrong, without the program's name; the message joins them. */
  readonly lines: readonly string[];

  constructor(lines: readonly string[], options?: ErrorOptions) {
    super("ERR_SPIPED_CONFIG", lines.join("; "), options);
    this.lines = lines;
  }
}

/** A command line that makes no sense: the usage text is due, and exit status 1. */
export class UsageError extends Error {
  /** The original's own line before the usage text, where it has one. */
  readonly complaint: string | undefined;

  /** @param hint which argument was wrong, for a line after the usage text. */
  constructor(hint: string, complaint?: string) {
    super(hint);
    this.complaint = complaint;
  }
}
