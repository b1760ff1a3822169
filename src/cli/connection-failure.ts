/** A connection of `spipe` failed. The exit status is 1. */
export class ConnectionFailure extends Error {
  /** Lines for standard error, without the program's name. */
  readonly lines: readonly string[];

  constructor(lines: readonly string[]) {
    super(lines.join("; "));
    this.lines = lines;
  }
}
