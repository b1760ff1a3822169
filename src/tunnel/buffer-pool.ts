/**
 * Buffers for packets and data on their way to a socket. One is taken for each write and goes back when the socket
 * has taken all of it, so that a busy connection uses the same few again and again, and an idle one holds none.
 */
import { BATCH_PACKETS, PACKET_SIZE } from "../protocol/packet.ts";

/** Bytes of a pooled buffer: a batch of packets. What one read of a socket gives (64 KiB) fits, sealed or opened. */
export const POOLED_SIZE = BATCH_PACKETS * PACKET_SIZE;
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
