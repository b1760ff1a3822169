/**
 * Buffers for packets and data on their way to a socket. One is taken for each write and goes back when the socket
 * has taken all of it, so that a busy connection uses the same few again and again, and an idle one holds none.
 *
 * They come in two sizes: for short reads, which are all that a connection does whose sink may be stuck, and for long
 * ones.
 */

import { LONGEST_READ, SHORT_READ } from "../net/fairness.ts";
import { sealedSize } from "../protocol/packet.ts";

/** Bytes of the largest buffer: what one read of a socket gives fits, sealed or opened. */
export const POOLED_SIZE = sealedSize(LONGEST_READ);
const SMALL_SIZE = sealedSize(SHORT_READ);
/** Buffers of each size that are kept for later; more than these exist only while that many sockets are slow. */
const KEPT = 32;

const small: Buffer[] = [];
const large: Buffer[] = [];

/**
 * Takes a buffer with any contents.
 *
 * @param length of what is to be sealed or opened into it, up to `LONGEST_READ` bytes.
 */
export function takeBuffer(length: number): Buffer {
  if (length <= SHORT_READ) return small.pop() ?? Buffer.allocUnsafeSlow(SMALL_SIZE);
  return large.pop() ?? Buffer.allocUnsafeSlow(POOLED_SIZE);
}

/** Gives a buffer back. Nobody may use it afterwards. */
export function giveBuffer(buffer: Buffer): void {
  const free = buffer.length === SMALL_SIZE ? small : large;
  if (free.length < KEPT) free.push(buffer);
}
