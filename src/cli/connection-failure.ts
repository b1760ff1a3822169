/** A connection of `spipe` that failed; the exit status is 1. */
export class ConnectionFailure extends Error {
  /** What is written to standard error, without the program's name. */
  readonly lines: readonly string[];

  constructor(lines: readonly string[]) {
    super(lines.join("; "));
    this.lines = lines;
  }
}
