/**
 * The port between the packet layer and the cryptography that carries it in bulk. Two engines stand behind it:
 * `native` (Node's OpenSSL) and `portable` (@noble); both give the same bytes.
 */
import type { PacketError } from "./errors.ts";

/** Keys of one direction of a session: AES-256 (E) and HMAC-SHA256 (H), 32 bytes each (section 1.7). */
export interface DirectionKeys {
  readonly encrypt: Uint8Array;
  readonly mac: Uint8Array;
}

/** Turns data into packets. */
export interface Sealer {
  /**
   * Seals `data` (any length; cut into packets of up to 1024 bytes at once, nothing is held back) and writes
   * the packets to the start of `out`, which must have room for `sealedSize(data.length)` bytes.
   *
   * @returns the number of bytes written.
   * @throws RangeError if `out` is too small, Error after `destroy()` or once 2^64 packets have been sealed.
   */
  seal(data: Uint8Array, out: Uint8Array): number;
  /** Overwrites the keys. The sealer can't be used afterwards. */
  destroy(): void;
}

/** Turns a byte stream of packets, cut anywhere, back into data. */
export interface Opener {
  /**
   * Takes the next bytes of the stream and writes the data of all packets that became complete to the start of
   * `out`, which must have room for `openedSize(wire.length)` bytes. Every packet's tag is verified before it is
   * decrypted. At the first packet that is not genuine, the data before it has been written, `failure` is set,
   * and the opener refuses everything that follows (it returns 0).
   *
   * @returns the number of bytes written.
   * @throws RangeError if `out` is too small, Error after `destroy()`.
   */
  open(wire: Uint8Array, out: Uint8Array): number;
  /**
   * To be called when the stream has ended: sets `failure` to `ERR_SPIPED_TRUNCATED` if it ended inside a packet.
   *
   * @returns `failure`.
   */
  end(): PacketError | undefined;
  /** Why the stream was refused, once it was. */
  readonly failure: PacketError | undefined;
  /** Overwrites the keys and any unfinished packet. The opener can't be used afterwards. */
  destroy(): void;
}

/** Makes sealers and openers. `firstPacket` is the number of the first packet, 0 in every real session. */
export interface Engine {
  readonly name: "native" | "portable";
  createSealer(keys: DirectionKeys, firstPacket?: bigint): Sealer;
  createOpener(keys: DirectionKeys, firstPacket?: bigint): Opener;
}
