/**
 * What simulated programs send: each a stream of its own, that its receiver can check at any offset. It starts with the
 * sender's number, so that a receiver knows whose stream it gets.
 */

/** Length of the start that identifies the sender. */
export const HEADER_SIZE = 8;
/** A prime, so that no two offsets that are multiples of a packet or buffer size look alike. */
const PERIOD = 65_521;

const pattern = Buffer.allocUnsafe(2 * PERIOD);
for (let index = 0, value = 1; index < PERIOD; index += 1) {
  value = (value * 48_271) % 0x7fff_ffff;
  pattern[index] = value >>> 8;
  pattern[PERIOD + index] = value >>> 8;
}

function header(sender: number): Buffer {
  const result = Buffer.alloc(HEADER_SIZE, 0xa5);
  result.writeUInt32BE(sender, 0);
  return result;
}

/** Returns up to `length` bytes, at least one, of a sender's stream. */
export function contentAt(sender: number, offset: number, length: number): Buffer {
  if (offset < HEADER_SIZE) return header(sender).subarray(offset, offset + length);
  const start = (sender * 7919 + offset) % PERIOD;
  return pattern.subarray(start, start + Math.min(length, PERIOD));
}

/** Returns the sender that the start of a stream identifies. */
export function senderOf(start: Buffer): number {
  return start.readUInt32BE(0);
}

/** Returns true if `bytes` are those of a sender's stream at an offset. */
export function isContent(sender: number, offset: number, bytes: Buffer): boolean {
  for (let index = 0; index < bytes.length; ) {
    const expected = contentAt(sender, offset + index, bytes.length - index);
    if (expected.compare(bytes, index, index + expected.length) !== 0) return false;
    index += expected.length;
  }
  return true;
}
