/**
 * Limits how many connections to a target are being opened at the same time. Each costs both sides two exponentiations,
 * so thousands at once would all be slow and time out. How many can succeed within the timeout depends on the machines
 * and the round-trip time, so the limit adapts to the time that connections take.
 */
import { startTimeout } from "../net/timers.ts";
import { ConnectionLimit } from "./connection-limit.ts";
import { QueueTimeoutError } from "./tunnel-error.ts";

/** Bounds of the limit. The upper one allows several hundred connections per second at a round-trip time of 300 ms. */
const MIN_IN_FLIGHT = 32;
const MAX_IN_FLIGHT = 256;
/** Fraction of the timeout above which a connection counts as slow. */
const SLOW_FRACTION = 1 / 4;

/** Opens connections, with an adaptive limit on their number. */
export class HandshakeQueue {
  readonly #slots = new ConnectionLimit(MIN_IN_FLIGHT, () => {});
  #opened = 0;

  /**
   * Calls `open` when a slot is free. The timeout does not limit the time in the queue: the target counts as down only
   * if no connection has succeeded for that long.
   *
   * @param timeout - in ms.
   * @param signal - cancels the wait, which rejects with the signal's reason.
   * @throws QueueTimeoutError, the signal's reason, or what `open` throws.
   */
  async run<Result>(timeout: number, signal: AbortSignal, open: () => Promise<Result>): Promise<Result> {
    signal.throwIfAborted();
    await this.#acquireSlot(timeout, signal);
    const start = performance.now();
    try {
      const result = await open();
      this.#opened += 1;
      return result;
    } finally {
      this.#adjust(performance.now() - start > timeout * SLOW_FRACTION);
      this.#slots.release();
    }
  }

  #adjust(wasSlow: boolean): void {
    const { limit } = this.#slots;
    const next = wasSlow ? Math.floor(limit * 0.9) : limit + 1;
    this.#slots.setLimit(Math.min(Math.max(next, MIN_IN_FLIGHT), MAX_IN_FLIGHT));
  }

  #acquireSlot(timeout: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      let cancelTimeout = () => {};
      const cleanUp = () => {
        cancelTimeout();
        signal.removeEventListener("abort", abort);
      };
      const abort = () => {
        cancelRequest();
        cleanUp();
        reject(signal.reason);
      };
      let acquired = false;
      const cancelRequest = this.#slots.acquire(() => {
        acquired = true;
        cleanUp();
        resolve();
      });
      if (acquired) return;
      signal.addEventListener("abort", abort);
      const wait = (opened: number) => {
        cancelTimeout = startTimeout(timeout, () => {
          if (this.#opened !== opened) {
            wait(this.#opened);
            return;
          }
          cancelRequest();
          cleanUp();
          reject(new QueueTimeoutError(timeout));
        });
      };
      wait(this.#opened);
    });
  }
}
