/**
 * How many connections to a target are under way at once. Each costs both sides two exponentiations, so thousands at once
 * would all be slow, and all run into the time limit; a few hundred at a time all come about.
 */
import { deadline } from "./deadline.ts";
import { ConnectError } from "./errors.ts";
import { Slots } from "./slots.ts";

/** Enough for several hundred connections a second where a round trip takes 300 ms. */
const MAX_IN_FLIGHT = 256;

/** Opens connections, only so many at a time. */
export class HandshakeQueue {
  readonly #slots = new Slots(MAX_IN_FLIGHT, () => {});
  #opened = 0;

  /**
   * Calls `open` when it is this connection's turn. The time limit does not apply to the waiting as such: only if no
   * connection came about for as long, the target is taken for dead.
   *
   * @param timeout ms.
   * @param signal ends the waiting with its reason.
   * @throws ConnectError, the signal's reason, or what `open` throws.
   */
  async run<Result>(timeout: number, signal: AbortSignal, open: () => Promise<Result>): Promise<Result> {
    signal.throwIfAborted();
    await this.#turn(timeout, signal);
    try {
      const result = await open();
      this.#opened += 1;
      return result;
    } finally {
      this.#slots.release();
    }
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
          reject(new ConnectError("ERR_SPIPED_CONNECT_TIMEOUT", `no connection within ${timeout / 1000} s`));
        });
      };
      wait(this.#opened);
    });
  }
}
