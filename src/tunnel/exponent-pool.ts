/**
 * A pool of ephemeral exponents with their public values, computed while the process is idle: a connection that takes
 * one needs one exponentiation fewer. Each is used once. Under a sustained load the pool is empty.
 */

import { startTimeout } from "../net/timers.ts";
import { Exponent, type ExponentSource } from "../protocol/diffie-hellman.ts";

/** Maximum number of exponents in the pool. */
export const MAX_EXPONENTS = 64;
/** Time without a handshake after which exponents are computed, in ms. */
const QUIET_MS = 20;
/** Time between two exponents, in ms. One takes 0.3 ms, by which it may delay an event. */
const INTERVAL_MS = 5;
/** Lateness of a timer from which the process or the machine counts as busy, in ms. */
const MAX_LATENESS_MS = 2;
/** Maximum time until a busy process is checked again, in ms. */
const MAX_INTERVAL_MS = 1000;

/** The pool of a process. It is empty unless it has a user. */
export class ExponentPool implements ExponentSource {
  readonly #ready: Exponent[] = [];
  #users = 0;
  #takenAt = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | undefined;

  /** Number of exponents in the pool. */
  get size(): number {
    return this.#ready.length;
  }

  /**
   * Adds a user and starts to fill the pool.
   *
   * @returns a function that removes the user; the last one that is removed discards all exponents.
   */
  use(): () => void {
    this.#users += 1;
    this.#schedule(QUIET_MS);
    let isUser = true;
    return () => {
      if (!isUser) return;
      isUser = false;
      this.#users -= 1;
      if (this.#users === 0) this.#clear();
    };
  }

  take(): Exponent {
    this.#takenAt = performance.now();
    const exponent = this.#ready.pop() ?? Exponent.generate();
    this.#schedule(QUIET_MS);
    return exponent;
  }

  #schedule(delay: number): void {
    if (this.#cancel !== undefined || this.#users === 0 || this.#ready.length >= MAX_EXPONENTS) return;
    const due = performance.now() + delay;
    this.#cancel = startTimeout(delay, () => {
      this.#cancel = undefined;
      const now = performance.now();
      const isIdle = now - this.#takenAt >= QUIET_MS && now - due <= MAX_LATENESS_MS;
      if (isIdle) this.#add();
      this.#schedule(isIdle ? INTERVAL_MS : Math.min(2 * delay, MAX_INTERVAL_MS));
    });
  }

  #add(): void {
    const exponent = Exponent.generate();
    exponent.publicValue();
    this.#ready.push(exponent);
  }

  #clear(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    for (const exponent of this.#ready.splice(0)) exponent.destroy();
  }
}
