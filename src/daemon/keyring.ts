/** The keys that a tunnel uses, each with its client's name. */
import { Secret } from "../protocol/secret.ts";
import type { Limiter } from "../tunnel/connection-limit.ts";
import type { Targets } from "./targets.ts";

/** A key and the settings for its clients. */
export interface Key {
  /** Client name, which several keys may share; undefined unless the keys come from a directory. */
  readonly name?: string | undefined;
  readonly secret: Secret;
  /** Distinguishes a client's keys in the log and in metrics; undefined if `name` is. */
  readonly fingerprint?: string | undefined;
  /** Targets for its clients; defaults to the tunnel's. */
  readonly targets?: Targets | undefined;
  /** Limit on its clients' connections, in addition to the tunnel's. */
  readonly connectionLimit?: Limiter | undefined;
  /** Time from which the key is rejected, in ms since 1970. */
  readonly expires?: number | undefined;
}

/** A list of keys, most recently used first. */
export class Keyring {
  #keys: Key[];

  /** @param keys - exactly one for `-e`; an empty list for `-d` rejects all clients. */
  constructor(keys: readonly Key[]) {
    this.#keys = [...keys];
  }

  /** The only secret of an encrypting tunnel (`-e`). */
  get singleSecret(): Secret {
    return this.#keys[0]!.secret;
  }

  get keys(): readonly Key[] {
    return this.#keys;
  }

  replace(keys: readonly Key[]): void {
    this.#keys = [...keys];
  }

  /** Yields the secrets that a client may hold, most likely first. */
  *candidates(): Iterable<Secret> {
    for (const { secret } of this.#keys) yield secret;
  }

  /** Moves the key of an authenticated client to the front and returns it; undefined if it was removed. */
  markUsed(secret: Secret): Key | undefined {
    const index = this.#keys.findIndex((key) => key.secret === secret);
    const key = this.#keys[index];
    if (key === undefined) return undefined;
    this.#keys.splice(index, 1);
    this.#keys.unshift(key);
    return key;
  }
}

/**
 * Replaces secrets in `keys` with equal secrets of the same name in `previous`, so that clients authenticated before a
 * reload are still recognized after it.
 *
 * @returns the keys to use, and the previous secrets that are no longer used.
 */
export function reuseSecrets(
  keys: readonly Key[],
  previous: readonly Key[],
): { readonly keys: readonly Key[]; readonly removed: readonly Secret[] } {
  const old = new Map<string | undefined, Key[]>();
  for (const key of previous) old.set(key.name, [...(old.get(key.name) ?? []), key]);
  const kept = new Set<Secret>();
  const reused = keys.map((key) => {
    const same = old.get(key.name)?.find(({ secret }) => Secret.equal(secret, key.secret));
    if (same === undefined || same.secret === key.secret) {
      kept.add(key.secret);
      return key;
    }
    key.secret.destroy();
    kept.add(same.secret);
    return { ...key, secret: same.secret };
  });
  return {
    keys: reused,
    removed: previous.map(({ secret }) => secret).filter((secret) => !kept.has(secret)),
  };
}
