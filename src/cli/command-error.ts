import { ConfigError } from "../config/config-error.ts";

/** A failure that the user is told in so many lines on standard error; the exit status is 1. */
export class CommandError extends Error {
  /** Without the program's name. */
  readonly lines: readonly string[];

  constructor(...lines: string[]) {
    super(lines.join("; "));
    this.lines = lines;
  }
}

/** Has a ConfigError told to the user. */
export async function asCommandError<Result>(reading: Promise<Result>): Promise<Result> {
  try {
    return await reading;
  } catch (error) {
    throw error instanceof ConfigError ? new CommandError(...error.lines) : error;
  }
}
