/** A failure that the user is told in so many lines on standard error; the exit status is 1. */
export class CommandError extends Error {
  /** Without the program's name. */
  readonly lines: readonly string[];

  constructor(...lines: string[]) {
    super(lines.join("; "));
    this.lines = lines;
  }
}
