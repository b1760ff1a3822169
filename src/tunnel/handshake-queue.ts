/**
 * Limits how many connections to a target are being opened at the same time. Each costs both sides two exponentiations,
 * so thousands at once would all be slow and time out; and Tarsnap's spiped has a listen backlog of 10, beyond which the
 * kernel drops connections that then wait for retransmissions. How many make sense depends on the machines and the
 * round-trip time, so the limit adapts to the time that connections take, as in TCP Vegas.
 */
import type { CloseSignal } from "../net/close-signal.ts";
import { onAbort } from "../net/on-abort.ts";
import { startTimeout } from "../net/timers.ts";
import { ConnectionLimit } from "./connection-limit.ts";
import { QueueTimeoutError } from "./tunnel-error.ts";

/** Bounds of the limit. The upper one allows several hundred connections per second at a round-trip time of 300 ms. */
const MIN_IN_FLIGHT = 8;
const MAX_IN_FLIGHT = 256;
/** Number of connections that may wait for each other at the target; they keep it busy. */
const MAX_QUEUED = 8;
/** Multiple of the shortest time up to which a connection counts as not having waited: round-trip times vary. */
const TOLERANCE = 2;
/** Fraction of the timeout above which a connection counts as slow in any case. */
const SLOW_FRACTION = 1 / 4;
/** Time for which the shortest time is remembered, at least; routes and targets change. In ms. */
const MEMORY_MS = 15_000;

/** Opens connections, with an adaptive limit on their number. */
export class HandshakeQueue {
  readonly #slots = new ConnectionLimit(MIN_IN_FLIGHT, () => {});
  readonly #shortest = new RecentMinimum(MEMORY_MS);
  #opened = 0;

  /**
   * Calls `open` when a slot is free. The timeout does not limit the time in the queue: the target counts as down only
   * if no connection has succeeded for that long.
   *
   * @param timeout - in ms.
   * @param signal - cancels the wait, which rejects with the signal's reason.
   * @throws QueueTimeoutError, the signal's reason, or what `open` throws.
   */
  async run<Result>(
    timeout: number,
    signal: AbortSignal | CloseSignal,
    open: () => Promise<Result>,
  ): Promise<Result> {
    if (signal.aborted) throw signal.reason;
    await this.#acquireSlot(timeout, signal);
    const start = performance.now();
    let isOpen = false;
    try {
      const result = await open();
      isOpen = true;
      return result;
    } finally {
      this.#adjust(isOpen, performance.now() - start, timeout);
      this.#slots.release();
    }
  }

  #adjust(isOpen: boolean, duration: number, timeout: number): void {
    const { limit, waiting } = this.#slots;
    if (isOpen) {
      this.#opened += 1;
      this.#shortest.add(duration);
    }
    let next = limit;
    if (duration > timeout * SLOW_FRACTION) next = Math.floor(limit * 0.9);
    else if (isOpen) {
      // By Little's law, the part of the time that was spent waiting is the part of the connections that wait.
      const queued = limit * (1 - (TOLERANCE * this.#shortest.value) / duration);
      if (queued > MAX_QUEUED) next -= 1;
      else if (waiting > 0) next += 1;
    }
    if (next !== limit) this.#slots.setLimit(Math.min(Math.max(next, MIN_IN_FLIGHT), MAX_IN_FLIGHT));
  }

  #acquireSlot(timeout: number, signal: AbortSignal | CloseSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      let cancelTimeout = () => {};
      let removeAbortListener = () => {};
      const cleanUp = () => {
        cancelTimeout();
        removeAbortListener();
      };
      let acquired = false;
      const cancelRequest = this.#slots.acquire(() => {
        acquired = true;
        cleanUp();
        resolve();
      });
      if (acquired) return;
      removeAbortListener = onAbort(signal, () => {
        cancelRequest();
        cleanUp();
        reject(signal.reason);
      });
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

/** The smallest of recent values. */
class RecentMinimum {
  readonly #memory: number;
  #current = Number.POSITIVE_INFINITY;
  #previous = Number.POSITIVE_INFINITY;
  #startedAt = performance.now();

  /** @param memory - time for which a value counts, in ms; it may count twice as long. */
  constructor(memory: number) {
    this.#memory = memory;
  }

  /** The smallest recent value; `Infinity` if there is none. */
  get value(): number {
    return Math.min(this.#current, this.#previous);
  }

  add(value: number): void {
    const now = performance.now();
    if (now - this.#startedAt >= this.#memory) {
      this.#previous = this.#current;
      this.#current = value;
      this.#startedAt = now;
    } else this.#current = Math.min(this.#current, value);
  }
}
