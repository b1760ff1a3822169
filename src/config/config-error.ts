/** Errors in the configuration or on the command line. */
import { SpipedError } from "../errors.ts";

/** A file, option value or address is unusable, or a step of the start failed. The exit status is 1. */
export class ConfigError extends SpipedError {
  /** One line per problem, without the program's name. The message joins them. */
  readonly lines: readonly string[];

  constructor(lines: readonly string[], options?: ErrorOptions) {
    super("ERR_SPIPED_CONFIG", lines.join("; "), options);
    this.lines = lines;
  }
}

/** The command line is invalid. The program prints the usage text and exits with status 1. */
export class UsageError extends Error {
  /** The line that Tarsnap's programs print before the usage text; undefined if they print none. */
  readonly upstreamMessage: string | undefined;

  /** @param hint - names the wrong argument, for the line after the usage text. */
  constructor(hint: string, upstreamMessage?: string) {
    super(hint);
    this.upstreamMessage = upstreamMessage;
  }
}
