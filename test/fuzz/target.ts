/** What the fuzzer needs of a target. */

/** A target, one module in `targets/` each. */
export interface FuzzTarget {
  /** Inputs to start from: some that are accepted, some that are nearly so. */
  readonly seeds: readonly Buffer[];
  /** Texts that mutations insert. */
  readonly words: readonly string[];
  /**
   * Runs one input.
   *
   * @throws Error if a property does not hold.
   */
  run(input: Buffer): void | Promise<void>;
  /** Releases what the target holds. */
  close?(): void | Promise<void>;
}

/** Throws an error unless a property holds. */
export function check(holds: boolean, property: string, details?: unknown): asserts holds {
  if (holds) return;
  throw new Error(details === undefined ? property : `${property}: ${JSON.stringify(details)}`);
}
