/** Properties and checks of key files. */

/** Bytes of a new key, the same as those of the protocol's K. */
export const KEY_BYTES = 32;

/** Minimum bytes of a key in a key directory. */
export const MIN_KEY_BYTES = 16;

/** Properties of a key file. */
export interface KeyFacts {
  readonly bytes: number;
  /** Permission bits. */
  readonly mode: number;
  /** Time of the last modification. */
  readonly modified: Date;
}

/** Returns warnings about a usable key, one sentence each. */
export function warningsFor(path: string, { bytes, mode }: Pick<KeyFacts, "bytes" | "mode">): string[] {
  const warnings: string[] = [];
  if ((mode & 0o004) !== 0) warnings.push(`key file ${path} is world-readable; run chmod 600 ${path}`);
  if (bytes < KEY_BYTES) {
    const size = `${bytes} ${bytes === 1 ? "byte" : "bytes"}`;
    warnings.push(
      `key in ${path} has only ${size} and could be guessed; create one of ${KEY_BYTES} random bytes with spiped --generate-key`,
    );
  }
  return warnings;
}
