/** The generator of pseudo-random numbers that decides everything in a simulated world: sfc32, seeded with a number. */

export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /**
   * @param seed - an integer from 0 to 2^53 - 1.
   * @param stream - number of one of several independent sequences of a seed.
   */
  constructor(seed: number, stream: number) {
    this.#a = seed >>> 0;
    this.#b = Math.floor(seed / 2 ** 32) >>> 0;
    this.#c = (0x9e37_79b9 + stream) | 0;
    // Neighbouring seeds produce similar numbers at first.
    for (let round = 0; round < 12; round += 1) this.bits();
  }

  /** Returns 32 bits. */
  bits(): number {
    const result = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) | 0;
    return result >>> 0;
  }

  /** Returns an integer from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.bits() / 2 ** 32) * limit);
  }

  /** Returns an integer from `min` to `max`. */
  between(min: number, max: number): number {
    return min + this.below(max - min + 1);
  }

  /** Returns an integer from `min` (at least 1) to `max`, whose logarithm is uniformly distributed. */
  magnitude(min: number, max: number): number {
    const bits = this.between(Math.floor(Math.log2(min)), Math.floor(Math.log2(max)));
    return Math.min(max, Math.max(min, this.between(2 ** bits, 2 ** (bits + 1) - 1)));
  }

  /** Returns true with a probability from 0 to 1. */
  chance(probability: number): boolean {
    return this.bits() < probability * 2 ** 32;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)]!;
  }

  /** Puts the items of an array into random order, in place. */
  shuffle<Item>(items: Item[]): Item[] {
    for (let last = items.length - 1; last > 0; last -= 1) {
      const other = this.below(last + 1);
      [items[last], items[other]] = [items[other]!, items[last]!];
    }
    return items;
  }

  bytes(length: number): Buffer {
    const result = Buffer.allocUnsafe(length);
    for (let index = 0; index < length; index += 1) result[index] = this.bits() & 0xff;
    return result;
  }
}
