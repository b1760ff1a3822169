/**
 * Cancels an operation when a socket closes. Does what an AbortSignal would do; but each connection has one, and the
 * objects and listeners of an AbortController take 2 % of the time of a new connection.
 */
import type { Socket } from "node:net";

/** Aborts when a socket closes, unless `stop()` is called first. */
export class CloseSignal {
  readonly #socket: Socket;
  readonly #makeReason: () => Error;
  readonly #actions = new Set<() => void>();
  #reason: Error | undefined;

  /** @param makeReason - returns the reason with which operations fail. */
  constructor(socket: Socket, makeReason: () => Error) {
    this.#socket = socket;
    this.#makeReason = makeReason;
    if (socket.destroyed) this.#abort();
    else socket.once("close", this.#abort);
  }

  get aborted(): boolean {
    return this.#reason !== undefined;
  }

  /** The reason with which operations fail; undefined until the socket closes. */
  get reason(): Error | undefined {
    return this.#reason;
  }

  /** Calls `action` when the socket closes, unless the returned function is called first. */
  onAbort(action: () => void): () => void {
    this.#actions.add(action);
    return () => void this.#actions.delete(action);
  }

  /** Removes the listener from the socket. */
  stop(): void {
    this.#socket.off("close", this.#abort);
  }

  readonly #abort = (): void => {
    this.#reason = this.#makeReason();
    for (const action of this.#actions) action();
  };
}
