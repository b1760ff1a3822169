/**
 * The packet on the wire (section 1.8 of the protocol; Tarsnap's `proto_crypt`).
 *
 *     0            1024       1028          1060
 *     | data, zero- | length   | HMAC-SHA256 |
 *     | padded      | 32 bit BE| (clear)     |
 *     '---- encrypted --------'
 *
 * All packets have this size; the packet number is counted by both sides and never sent.
 */

/** Bytes of data that a packet can carry. */
export const PACKET_DATA = 1024;
/** Bytes of a packet that are encrypted and authenticated: the data and its 32-bit length. */
export const PACKET_CIPHERTEXT = PACKET_DATA + 4;
/** Bytes of the authentication tag. */
export const PACKET_TAG = 32;
/** Bytes of a whole packet on the wire. */
export const PACKET_SIZE = PACKET_CIPHERTEXT + PACKET_TAG;
/** AES blocks of keystream behind a packet; the last one is used for 4 bytes only. */
export const PACKET_BLOCKS = Math.ceil(PACKET_CIPHERTEXT / 16);

/** Packets handled in one call to an engine. */
export const BATCH_PACKETS = 64;

/** Bytes on the wire for `length` bytes of data. */
export function sealedSize(length: number): number {
  return Math.ceil(length / PACKET_DATA) * PACKET_SIZE;
}

/** The most bytes of data that `length` bytes on the wire, added to an unfinished packet, can hold. */
export function openedSize(length: number): number {
  return Math.floor((length + PACKET_SIZE - 1) / PACKET_SIZE) * PACKET_DATA;
}
