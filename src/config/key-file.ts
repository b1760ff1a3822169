/** What makes a key file good or bad. */

/** Bytes of a new key: as many as the protocol's own K has. */
export const KEY_BYTES = 32;

/** A file of a key directory with fewer bytes is no key. */
export const MIN_KEY_BYTES = 16;

/** What is known of a key besides its contents. */
export interface KeyFacts {
  readonly bytes: number;
  /** Permissions. */
  readonly mode: number;
  /** When the file was last written. */
  readonly modified: Date;
}

/** What the owner of a key that can be used should know of it, in one sentence each. */
export function warningsFor(path: string, { bytes, mode }: Pick<KeyFacts, "bytes" | "mode">): string[] {
  const warnings: string[] = [];
  if ((mode & 0o004) !== 0)
    warnings.push(`Everyone on this machine can read the key in ${path}: run chmod 600 ${path}`);
  if (bytes < KEY_BYTES) {
    const size = `${bytes} ${bytes === 1 ? "byte" : "bytes"}`;
    warnings.push(
      `The key in ${path} has only ${size} and may be guessed: make one of ${KEY_BYTES} random bytes with spiped --generate-key`,
    );
  }
  return warnings;
}
