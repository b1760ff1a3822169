/** Runs the main function of either program. */

import { ConfigError, UsageError } from "../config/config-error.ts";
import { escapeUnprintable } from "../config/printable.ts";
import { flushStandardError, writeError } from "../daemon/observe/line-writer.ts";
import { ConnectionFailure } from "./connection-failure.ts";

/** Thrown to end `main` early with an exit status. */
export class Exit extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`exit status ${status}`);
    this.status = status;
  }
}

/**
 * Runs a program's main function and prints its errors to standard error.
 *
 * @param usage - the usage text.
 * @returns the exit status.
 */
export async function runProgram(
  program: string,
  usage: string,
  main: () => Promise<number>,
): Promise<number> {
  const printError = (line: string) => writeError(`${program}: ${escapeUnprintable(line)}\n`);
  try {
    return await main();
  } catch (error) {
    if (error instanceof Exit) return error.status;
    if (error instanceof UsageError) {
      if (error.upstreamMessage !== undefined) printError(error.upstreamMessage);
      writeError(usage);
      printError(error.message);
      return 1;
    }
    if (!(error instanceof ConfigError || error instanceof ConnectionFailure)) throw error;
    for (const line of error.lines) printError(line);
    return 1;
  } finally {
    await flushStandardError();
  }
}
