/**
 * A pool of buffers for packets and data to be written to a socket. Each write acquires a buffer and releases it when
 * the socket has accepted all bytes, so a busy connection reuses a few buffers and an idle one holds none.
 *
 * There are two sizes: one for short reads, the only ones while the sink may be stalled, and one for long reads.
 */

import { MAX_READ_BYTES, SHORT_READ_BYTES } from "../net/fairness.ts";
import { sealedSize } from "../protocol/packet.ts";

/** Size of the larger buffers in bytes: enough for the result of one socket read, encrypted or decrypted. */
export const POOLED_BUFFER_BYTES = sealedSize(MAX_READ_BYTES);
const SMALL_SIZE = sealedSize(SHORT_READ_BYTES);
/** Maximum number of free buffers kept per size; more exist only while more sockets are slow. */
const MAX_POOLED = 32;

const small: Buffer[] = [];
const large: Buffer[] = [];

/** Returns a buffer of at least `size` bytes, at most `POOLED_BUFFER_BYTES`, with arbitrary contents. */
export function acquireBuffer(size: number): Buffer {
  if (size <= SMALL_SIZE) return small.pop() ?? Buffer.allocUnsafeSlow(SMALL_SIZE);
  return large.pop() ?? Buffer.allocUnsafeSlow(POOLED_BUFFER_BYTES);
}

/** Returns a buffer to the pool. The caller must not use it afterwards. */
export function releaseBuffer(buffer: Buffer): void {
  const free = buffer.length === SMALL_SIZE ? small : large;
  if (free.length < MAX_POOLED) free.push(buffer);
}
