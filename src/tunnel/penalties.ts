/**
 * Penalties for sources whose handshakes fail, after OpenSSH's PerSourcePenalties, and the sources whose handshakes have
 * succeeded.
 *
 * A failed handshake costs the time of trying every key, so its penalty is proportional to their number: an honest client
 * with a wrong key and a few retries is never penalized, an attacker gets about a thousandth of a core. A penalty runs
 * down in real time, and takes effect when several have added up.
 */
import type { Secret } from "../protocol/secret.ts";

/** What a failed handshake adds: for itself, and for each key that was tried, ms. */
const PENALTY_PER_FAILURE_MS = 20;
const PENALTY_PER_KEY_MS = 1;
/** From what sum on a source's connections are closed, ms. */
const MIN_PENALTY_MS = 5000;
/** The longest penalty, and so the longest time until a mended client can connect, ms. */
const MAX_PENALTY_MS = 15_000;
/** How long after its penalty has run down a source is remembered, ms: its next penalty is longer, its keys are tried last. */
const FORGET_MS = 5 * 60_000;
/** How many sources are remembered, of either kind. */
const MAX_SOURCES = 16_384;
/** How many secrets are remembered for a source: clients behind one address may hold keys of their own. */
const MAX_SECRETS_PER_SOURCE = 16;

interface Penalty {
  /** When it has run down, ms on the monotonic clock. */
  endsAt: number;
  /** True once it has reached the minimum, until it has run down. */
  active: boolean;
  /** How often it took effect since it was last forgotten. */
  count: number;
}

/** What is remembered of sources. Both tables are limited; the entries that were not used for longest go first. */
export class Penalties {
  readonly #onPenalty: (source: string, duration: number) => void;
  readonly #penalties = new Map<string, Penalty>();
  /** Secrets that the clients of a source have proved to hold, the last one first. */
  readonly #known = new Map<string, readonly Secret[]>();

  /** @param onPenalty called when a penalty takes effect, with what is left of it, ms. */
  constructor(onPenalty: (source: string, duration: number) => void) {
    this.#onPenalty = onPenalty;
  }

  /** True if connections of the source shall be closed. */
  has(source: string): boolean {
    const penalty = this.#penalties.get(source);
    return penalty?.active === true && performance.now() < penalty.endsAt;
  }

  /** True if a handshake of the source has failed, none has succeeded since, and that is not forgotten. */
  isSuspect(source: string): boolean {
    const penalty = this.#penalties.get(source);
    return penalty !== undefined && performance.now() - penalty.endsAt <= FORGET_MS;
  }

  /** The secrets that the source's clients have proved to hold, the last one first. */
  secretsOf(source: string): readonly Secret[] {
    return this.#known.get(source) ?? [];
  }

  /** @param keysTried how many keys were tried in vain. */
  failed(source: string, keysTried: number): void {
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

  /** A client of the source has proved to hold the secret: its penalty is forgotten. */
  succeeded(source: string, secret: Secret): void {
    this.#penalties.delete(source);
    const others = this.secretsOf(source).filter((other) => other !== secret);
    remember(this.#known, source, [secret, ...others.slice(0, MAX_SECRETS_PER_SOURCE - 1)]);
  }

  /** Forgets all penalties: the keys have changed, and what was wrong may be right now. */
  forgive(): void {
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
