/** The base class of this package's errors. */

/** Base class of every error this package throws on purpose. */
export class SpipedError extends Error {
  /** Stable, machine-readable reason, such as `ERR_SPIPED_BAD_MAC`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}
