/** The limit on simultaneous connections (`-n`), with a FIFO queue for connections without a free slot. */

/** A limit on the number of simultaneous connections. */
export interface Limiter {
  /** Number of connections queued for a slot. */
  readonly waiting: number;
  /**
   * Acquires a slot, immediately or when one is free, and then calls `onAcquired`. Each acquired slot must be released.
   *
   * @returns a function that cancels the request; it has no effect once the slot is acquired.
   */
  acquire(onAcquired: () => void): () => void;
  /** Releases a slot, which the longest-queued connection acquires. */
  release(): void;
}

/** Counting semaphore with a FIFO queue. */
export class ConnectionLimit implements Limiter {
  #limit: number;
  readonly #onFull: () => void;
  readonly #waiting = new Set<() => void>();
  #taken = 0;

  /**
   * @param limit - number of slots; `Infinity` for no limit.
   * @param onFull - called each time the last free slot is taken.
   */
  constructor(limit: number, onFull: () => void) {
    this.#limit = limit;
    this.#onFull = onFull;
  }

  /** Number of slots. */
  get limit(): number {
    return this.#limit;
  }

  /** Number of connections queued for a slot. */
  get waiting(): number {
    return this.#waiting.size;
  }

  acquire(onAcquired: () => void): () => void {
    if (this.#taken < this.#limit) this.#grant(onAcquired);
    else this.#waiting.add(onAcquired);
    return () => this.#waiting.delete(onAcquired);
  }

  release(): void {
    this.#taken -= 1;
    this.#grantNext();
  }

  /** Changes the limit. Slots already acquired are kept. */
  setLimit(limit: number): void {
    this.#limit = limit;
    while (this.#grantNext());
  }

  #grantNext(): boolean {
    const [next] = this.#waiting;
    if (next === undefined || this.#taken >= this.#limit) return false;
    this.#waiting.delete(next);
    this.#grant(next);
    return true;
  }

  #grant(onAcquired: () => void): void {
    this.#taken += 1;
    if (this.#taken === this.#limit) this.#onFull();
    onAcquired();
  }
}
