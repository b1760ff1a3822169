/** The keys that a daemon accepts, each known by its client's name. */
import { Secret } from "../protocol/secret.ts";
import type { SlotCounter } from "../tunnel/slots.ts";
import type { Targets } from "./targets.ts";

/** A key and what holds for its clients. */
export interface Key {
  /** The client's name, which several keys may share; absent if there is only one key. */
  readonly name?: string | undefined;
  readonly secret: Secret;
  /** Tells a client's keys apart in log and metrics; absent where the name is. */
  readonly fingerprint?: string | undefined;
  /** Where its clients go, instead of the tunnel's target. */
  readonly targets?: Targets | undefined;
  /** How many of its clients are served at once, beside the tunnel's own limit. */
  readonly slots?: SlotCounter | undefined;
  /** From when on it is refused, ms since 1970. */
  readonly expires?: number | undefined;
}

/** Keys, those that were used last in front. */
export class Keyring {
  #keys: Key[];

  /** @param keys at least one for a side that connects; without any, a side that accepts lets nobody in. */
  constructor(keys: readonly Key[]) {
    this.#keys = [...keys];
  }

  /** The key of a side that connects, which has only one. */
  get only(): Secret {
    return this.#keys[0]!.secret;
  }

  get keys(): readonly Key[] {
    return this.#keys;
  }

  replace(keys: readonly Key[]): void {
    this.#keys = [...keys];
  }

  /** The secrets that a client may hold, the likeliest first. */
  *candidates(): Iterable<Secret> {
    for (const { secret } of this.#keys) yield secret;
  }

  /** The key that a client has proved to hold, which moves to the front; undefined if it is not accepted any more. */
  use(secret: Secret): Key | undefined {
    const index = this.#keys.findIndex((key) => key.secret === secret);
    const key = this.#keys[index];
    if (key === undefined) return undefined;
    this.#keys.splice(index, 1);
    this.#keys.unshift(key);
    return key;
  }
}

/**
 * Puts the secrets of `previous` in place of equal ones of the same name in `keys`, so that a client who was verified
 * before a reload is still known after it.
 *
 * @returns the keys to use, and the previous secrets that are in no use any more.
 */
export function carryOver(
  keys: readonly Key[],
  previous: readonly Key[],
): { readonly keys: readonly Key[]; readonly retired: readonly Secret[] } {
  const old = new Map<string | undefined, Key[]>();
  for (const key of previous) old.set(key.name, [...(old.get(key.name) ?? []), key]);
  const kept = new Set<Secret>();
  const carried = keys.map((key) => {
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
    keys: carried,
    retired: previous.map(({ secret }) => secret).filter((secret) => !kept.has(secret)),
  };
}
