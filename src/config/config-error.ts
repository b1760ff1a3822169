import { SpipedError } from "../protocol/errors.ts";

/** A key file, a key directory or a configuration file that cannot be used. */
export class ConfigError extends SpipedError {
  /** One line for each thing that is wrong; the message joins them. */
  readonly lines: readonly string[];

  constructor(lines: readonly string[], options?: ErrorOptions) {
    super("ERR_SPIPED_CONFIG", lines.join("; "), options);
    this.lines = lines;
  }
}
