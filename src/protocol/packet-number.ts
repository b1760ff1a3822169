/** A 64-bit packet number as two 32-bit halves: a double is not exact, and a BigInt too slow for the hot path. */
export class PacketNumber {
  high: number;
  low: number;
  /** True once all 2^64 packet numbers are used. */
  exhausted = false;

  constructor(first = 0n) {
    this.high = Number(BigInt.asUintN(32, first >> 32n));
    this.low = Number(BigInt.asUintN(32, first));
  }

  /** Returns true if `count` more packet numbers are available. */
  has(count: number): boolean {
    if (this.exhausted) return count === 0;
    return this.high < 0xffff_ffff || this.low + count <= 2 ** 32;
  }

  /** Advances by `count` packets; `has(count)` must be true. */
  advance(count: number): void {
    const low = this.low + count;
    this.low = low >>> 0;
    if (low < 2 ** 32) return;
    this.exhausted = this.high === 0xffff_ffff;
    this.high = (this.high + 1) >>> 0;
  }

  /** Returns the number of the packet `offset` places after the next one. */
  at(offset: number): bigint {
    return ((BigInt(this.high) << 32n) | BigInt(this.low)) + BigInt(offset);
  }
}
