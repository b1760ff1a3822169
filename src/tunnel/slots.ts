/**
 * The limit on simultaneous connections (`-n`). Who finds no free slot waits in order.
 */

/** A limit on how many may be served at once. */
export interface SlotCounter {
  /** How many wait for a slot. */
  readonly waiting: number;
  /**
   * Takes a slot, at once or when one is free; `granted` is called then. Each grant must be answered by `release`.
   *
   * @returns a function that leaves the queue; it does nothing once the slot was granted.
   */
  take(granted: () => void): () => void;
  /** Gives a slot back, to the one who has waited longest. */
  release(): void;
}

/** Counts taken slots and wakes who waits for one. */
export class Slots implements SlotCounter {
  #limit: number;
  readonly #onFull: () => void;
  readonly #waiting = new Set<() => void>();
  #taken = 0;

  /**
   * @param limit how many may be taken at once; `Infinity` for no limit.
   * @param onFull called each time the last free slot is taken.
   */
  constructor(limit: number, onFull: () => void) {
    this.#limit = limit;
    this.#onFull = onFull;
  }

  /** How many may be taken at once. */
  get limit(): number {
    return this.#limit;
  }

  /** How many wait for a slot. */
  get waiting(): number {
    return this.#waiting.size;
  }

  take(granted: () => void): () => void {
    if (this.#taken < this.#limit) this.#grant(granted);
    else this.#waiting.add(granted);
    return () => this.#waiting.delete(granted);
  }

  release(): void {
    this.#taken -= 1;
    this.#serveNext();
  }

  /** Changes the limit; who has a slot keeps it. */
  setLimit(limit: number): void {
    this.#limit = limit;
    while (this.#serveNext());
  }

  #serveNext(): boolean {
    const [next] = this.#waiting;
    if (next === undefined || this.#taken >= this.#limit) return false;
    this.#waiting.delete(next);
    this.#grant(next);
    return true;
  }

  #grant(granted: () => void): void {
    this.#taken += 1;
    if (this.#taken === this.#limit) this.#onFull();
    granted();
  }
}
