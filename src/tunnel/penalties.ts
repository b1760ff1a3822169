/**
 * Penalties for sources with failed handshakes, modelled on OpenSSH's PerSourcePenalties, and a record of the sources
 * with successful ones.
 *
 * A failed handshake costs the time to try every key, so its penalty is proportional to their number: an honest client
 * with a wrong key and a few retries is never penalized; an attacker gets about a thousandth of a core. Penalties add
 * up, decay in real time, and take effect above a minimum.
 */
import type { Secret } from "../protocol/secret.ts";

/** Penalty for a failed handshake, and for each key tried in it, in ms. */
const PENALTY_PER_FAILURE_MS = 20;
const PENALTY_PER_KEY_MS = 1;
/** Total penalty from which a source's connections are closed, in ms. */
const MIN_PENALTY_MS = 5000;
/** Maximum total penalty, and so the maximum time until a corrected client can connect, in ms. */
const MAX_PENALTY_MS = 15_000;
/** Time for which a source stays suspect after its penalty ends (longer penalties, lowest priority), in ms. */
const FORGET_MS = 5 * 60_000;
/** Maximum number of sources in each table. */
const MAX_SOURCES = 16_384;
/** Maximum number of secrets stored per source: clients behind one address may hold different keys. */
const MAX_SECRETS_PER_SOURCE = 16;

interface Penalty {
  /** End of the penalty, in ms on the monotonic clock. */
  endsAt: number;
  /** True from reaching the minimum until the penalty ends. */
  active: boolean;
  /** Number of times the penalty has taken effect since it was last forgotten. */
  count: number;
}

/** Failures and successes per source. Both tables are bounded; the least recently updated entry is dropped first. */
export class Penalties {
  readonly #onPenalty: (source: string, duration: number) => void;
  readonly #penalties = new Map<string, Penalty>();
  /** Secrets that clients of a source have authenticated with, most recent first. */
  readonly #known = new Map<string, readonly Secret[]>();

  /** @param onPenalty - called when a penalty takes effect, with its remaining time in ms. */
  constructor(onPenalty: (source: string, duration: number) => void) {
    this.#onPenalty = onPenalty;
  }

  /** Returns true if the source's connections must be closed. */
  has(source: string): boolean {
    const penalty = this.#penalties.get(source);
    return penalty?.active === true && performance.now() < penalty.endsAt;
  }

  /** Returns true if a handshake of the source failed recently and none has succeeded since. */
  isSuspect(source: string): boolean {
    const penalty = this.#penalties.get(source);
    return penalty !== undefined && performance.now() - penalty.endsAt <= FORGET_MS;
  }

  /** Returns the secrets that clients of the source have authenticated with, most recent first. */
  secretsOf(source: string): readonly Secret[] {
    return this.#known.get(source) ?? [];
  }

  /**
   * Records a failed handshake.
   *
   * @param keysTried - number of keys that did not match.
   */
  recordFailure(source: string, keysTried: number): void {
    const now = performance.now();
    let penalty = this.#penalties.get(source);
    if (penalty === undefined || now - penalty.endsAt > FORGET_MS) {
      penalty = { endsAt: now, active: false, count: 0 };
    }
    if (penalty.endsAt <= now) {
      penalty.endsAt = now;
      penalty.active = false;
    }
    const added = (PENALTY_PER_FAILURE_MS + PENALTY_PER_KEY_MS * keysTried) * 2 ** penalty.count;
    penalty.endsAt = Math.min(penalty.endsAt + added, now + MAX_PENALTY_MS);
    remember(this.#penalties, source, penalty);
    if (penalty.active || penalty.endsAt - now < MIN_PENALTY_MS) return;
    penalty.active = true;
    penalty.count += 1;
    this.#onPenalty(source, penalty.endsAt - now);
  }

  /** Records a successful handshake and forgets the source's penalty. */
  recordSuccess(source: string, secret: Secret): void {
    this.#penalties.delete(source);
    const others = this.secretsOf(source).filter((other) => other !== secret);
    remember(this.#known, source, [secret, ...others.slice(0, MAX_SECRETS_PER_SOURCE - 1)]);
  }

  /** Forgets all penalties; called when keys are added, since a key that was wrong may be valid now. */
  clear(): void {
    this.#penalties.clear();
  }
}

function remember<Value>(table: Map<string, Value>, source: string, value: Value): void {
  table.delete(source);
  table.set(source, value);
  if (table.size <= MAX_SOURCES) return;
  const [oldest] = table.keys();
  table.delete(oldest!);
}
