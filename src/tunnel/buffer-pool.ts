/**
 * Buffers for packets and data on their way to a socket. One is taken for each write and goes back when the socket
 * has taken all of it, so that a busy connection uses the same few again and again, and an idle one holds none.
 */
import { sealedSize } from "../protocol/packet.ts";
import { LONGEST_READ } from "./turn.ts";

/** Bytes of a pooled buffer: what one read of a socket gives fits, sealed or opened. */
export const POOLED_SIZE = sealedSize(LONGEST_READ);
/** Buffers kept for later; more than these exist only while that many sockets are slow. */
const KEPT = 32;

const free: Buffer[] = [];

/** Takes a buffer of `POOLED_SIZE` bytes with any contents. */
export function takeBuffer(): Buffer {
  return free.pop() ?? Buffer.allocUnsafeSlow(POOLED_SIZE);
}

/** Gives a buffer back. Nobody may use it afterwards. */
export function giveBuffer(buffer: Buffer): void {
  if (free.length < KEPT) free.push(buffer);
}
