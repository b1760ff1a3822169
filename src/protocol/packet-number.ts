/** The 64-bit number of a packet, as two 32-bit halves: neither a double nor, on the hot path, a BigInt. */
export class PacketNumber {
  high: number;
  low: number;
  /** True once 2^64 packets have been counted: their numbers are used up. */
  exhausted = false;

  constructor(first = 0n) {
    this.high = Number(BigInt.asUintN(32, first >> 32n));
    this.low = Number(BigInt.asUintN(32, first));
  }

  /** True if `count` more packets have numbers. */
  has(count: number): boolean {
    if (this.exhausted) return count === 0;
    return this.high < 0xffff_ffff || this.low + count <= 2 ** 32;
  }

  /** Counts `count` packets, for which there must be numbers. */
  advance(count: number): void {
    const low = this.low + count;
    this.low = low >>> 0;
    if (low < 2 ** 32) return;
    this.exhausted = this.high === 0xffff_ffff;
    this.high = (this.high + 1) >>> 0;
  }

  /** The number of the packet that is `offset` after the next one. */
  at(offset: number): bigint {
    return ((BigInt(this.high) << 32n) | BigInt(this.low)) + BigInt(offset);
  }
}
