/** Base class of every error that this package throws intentionally. */
export class SpipedError extends Error {
  /** Stable, machine-readable reason, such as `ERR_SPIPED_BAD_MAC`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}
