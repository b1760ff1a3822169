/**
 * The packet on the wire (section 1.8 of the protocol; Tarsnap's `proto_crypt`).
 *
 *     0            1024       1028          1060
 *     | data, zero- | length   | HMAC-SHA256 |
 *     | padded      | 32 bit BE| (clear)     |
 *     '---- encrypted --------'
 *
 * All packets have this size. Both sides count the packet number, which is never sent.
 */

/** Bytes of data that a packet can carry. */
export const PACKET_DATA_SIZE = 1024;
/** Bytes of a packet that are encrypted and authenticated: the data and its 32-bit length. */
export const PACKET_CIPHERTEXT_SIZE = PACKET_DATA_SIZE + 4;
/** Bytes of the MAC. */
export const PACKET_MAC_SIZE = 32;
/** Bytes of a packet on the wire. */
export const PACKET_SIZE = PACKET_CIPHERTEXT_SIZE + PACKET_MAC_SIZE;
/** AES blocks of keystream per packet; only 4 bytes of the last one are used. */
export const PACKET_BLOCKS = Math.ceil(PACKET_CIPHERTEXT_SIZE / 16);

/** Maximum packets per call to an engine. */
export const BATCH_PACKETS = 64;

/** Returns the bytes on the wire for `length` bytes of data. */
export function sealedSize(length: number): number {
  return Math.ceil(length / PACKET_DATA_SIZE) * PACKET_SIZE;
}

/** Returns the maximum bytes of data in `length` bytes on the wire that follow a partial packet. */
export function openedSize(length: number): number {
  return Math.floor((length + PACKET_SIZE - 1) / PACKET_SIZE) * PACKET_DATA_SIZE;
}
