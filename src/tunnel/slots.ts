/**
 * The limit on simultaneous connections (`-n`). Who finds no free slot waits in order.
 */

/** Counts taken slots and wakes who waits for one. */
export class Slots {
  readonly #limit: number;
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

  /** How many slots are taken. */
  get taken(): number {
    return this.#taken;
  }

  /** How many wait for a slot. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Takes a slot, at once or when one is free; `granted` is called then. Each call must be answered by `release`.
   *
   * @returns a function that leaves the queue; it does nothing once the slot was granted.
   */
  take(granted: () => void): () => void {
    if (this.#taken < this.#limit) this.#grant(granted);
    else this.#waiting.add(granted);
    return () => this.#waiting.delete(granted);
  }

  /** Gives a slot back, to the one who has waited longest. */
  release(): void {
    this.#taken -= 1;
    const [next] = this.#waiting;
    if (next === undefined) return;
    this.#waiting.delete(next);
    this.#grant(next);
  }

  #grant(granted: () => void): void {
    this.#taken += 1;
    if (this.#taken === this.#limit) this.#onFull();
    granted();
  }
}
