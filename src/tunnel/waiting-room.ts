/**
 * The room where strangers wait: connections whose peer has not yet proved that it holds the key. They take no slot
 * of `-n`; the room is bounded, and so is each address' share of it. When it is full the one who has waited longest
 * has to go: a peer that knows the key needs two round trips, a stranger only waits for its time to run out.
 */

/** A bounded set of guests, each known by its address. */
export class WaitingRoom {
  readonly #capacity: number;
  readonly #share: number;
  readonly #guests = new Set<Guest>();
  readonly #byAddress = new Map<string, Set<Guest>>();

  /**
   * @param capacity how many may wait in all.
   * @param share how many of them may come from one address.
   */
  constructor(capacity: number, share: number) {
    this.#capacity = capacity;
    this.#share = share;
  }

  /** How many wait. */
  get size(): number {
    return this.#guests.size;
  }

  /**
   * Lets a guest in; if there is no room for it, the oldest from its address or the oldest of all is evicted.
   *
   * @param evict called when the guest itself has to go; it is out of the room by then.
   * @returns a function to call when the guest leaves by itself.
   */
  enter(address: string, evict: () => void): () => void {
    const guest: Guest = { address, evict };
    let neighbours = this.#byAddress.get(address);
    if (neighbours !== undefined && neighbours.size >= this.#share) this.#evict(neighbours);
    else if (this.#guests.size >= this.#capacity) this.#evict(this.#guests);
    neighbours = this.#byAddress.get(address);
    if (neighbours === undefined) {
      neighbours = new Set();
      this.#byAddress.set(address, neighbours);
    }
    neighbours.add(guest);
    this.#guests.add(guest);
    return () => this.#leave(guest);
  }

  #evict(guests: Set<Guest>): void {
    const [oldest] = guests;
    if (oldest === undefined) return;
    this.#leave(oldest);
    oldest.evict();
  }

  #leave(guest: Guest): void {
    const neighbours = this.#byAddress.get(guest.address);
    if (!this.#guests.delete(guest) || neighbours === undefined) return;
    neighbours.delete(guest);
    if (neighbours.size === 0) this.#byAddress.delete(guest.address);
  }
}

interface Guest {
  readonly address: string;
  readonly evict: () => void;
}
