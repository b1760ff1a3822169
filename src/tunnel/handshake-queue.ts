/**
 * How many connections to a target are under way at once. Each costs both sides two exponentiations, so thousands at once
 * would all be slow, and all run into the time limit. How many at a time come about within it depends on the machines and
 * on the round trip, so it is adjusted to the time that they take.
 */
import { deadline } from "../net/timers.ts";
import { Slots } from "./slots.ts";
import { QueueTimeoutError } from "./tunnel-error.ts";

/** Bounds. The upper one allows several hundred connections a second if a round trip takes 300 ms. */
const MIN_IN_FLIGHT = 32;
const MAX_IN_FLIGHT = 256;
/** What part of the time limit a connection should take at most. */
const SLOW = 1 / 4;

/** Opens connections, only so many at a time. */
export class HandshakeQueue {
  readonly #slots = new Slots(MIN_IN_FLIGHT, () => {});
  #opened = 0;

  /**
   * Calls `open` when it is this connection's turn. The time limit does not apply to the waiting as such: only if no
   * connection came about for as long, the target is taken for dead.
   *
   * @param timeout ms.
   * @param signal ends the waiting with its reason.
   * @throws QueueTimeoutError, the signal's reason, or what `open` throws.
   */
  async run<Result>(timeout: number, signal: AbortSignal, open: () => Promise<Result>): Promise<Result> {
    signal.throwIfAborted();
    await this.#turn(timeout, signal);
    const start = performance.now();
    try {
      const result = await open();
      this.#opened += 1;
      return result;
    } finally {
      this.#adjust(performance.now() - start > timeout * SLOW);
      this.#slots.release();
    }
  }

  #adjust(wasSlow: boolean): void {
    const { limit } = this.#slots;
    const next = wasSlow ? Math.floor(limit * 0.9) : limit + 1;
    this.#slots.setLimit(Math.min(Math.max(next, MIN_IN_FLIGHT), MAX_IN_FLIGHT));
  }

  #turn(timeout: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      let cancelDeadline = () => {};
      const stop = () => {
        cancelDeadline();
        signal.removeEventListener("abort", abort);
      };
      const abort = () => {
        leave();
        stop();
        reject(signal.reason);
      };
      let acquired = false;
      const leave = this.#slots.take(() => {
        acquired = true;
        stop();
        resolve();
      });
      if (acquired) return;
      signal.addEventListener("abort", abort);
      const wait = (opened: number) => {
        cancelDeadline = deadline(timeout, () => {
          if (this.#opened !== opened) {
            wait(this.#opened);
            return;
          }
          leave();
          stop();
          reject(new QueueTimeoutError(timeout));
        });
      };
      wait(this.#opened);
    });
  }
}
