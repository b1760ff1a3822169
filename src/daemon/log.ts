/** A placeholder until the log lands. */
export interface Log {
  warn(message: string): void;
}
