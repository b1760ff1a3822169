/**
 * The interface between the packet layer and bulk cryptography. There are two engines, `native` (Node's OpenSSL) and
 * `portable` (`@noble`), which produce the same bytes.
 *
 * An engine processes one batch at a time, in a workspace that all its ciphers share. The caller must fill `input`,
 * call the cipher and read `output` synchronously, before another caller can overwrite them.
 */
import type { PacketNumber } from "../packet-number.ts";

/** Keys of one direction of a session: AES-256 (E) and HMAC-SHA256 (H), 32 bytes each (section 1.7). */
export interface DirectionKeys {
  readonly encrypt: Uint8Array;
  readonly mac: Uint8Array;
}

/** Buffers for a batch: up to 64 packets, or their data. The arrays are never replaced. */
export interface Workspace {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
}

/** The result of opening a batch of packets. */
export interface OpenedBatch {
  /** Bytes of data in the workspace's output, from all packets before the first rejected one. */
  length: number;
  /** Number of leading packets with a valid MAC and a valid length. */
  packets: number;
  /** Why the next packet was rejected; undefined if none was. */
  rejected: "mac" | "length" | undefined;
}

/** Seals and opens batches with the keys of one direction. */
export interface PacketCipher {
  /**
   * Seals the first `length` bytes of the workspace's input (1 to 65,536; the bytes after them may be zeroed). Writes
   * the packets, numbered from `first`, to its output.
   */
  seal(length: number, first: PacketNumber): void;
  /**
   * Opens the first `count` packets of the workspace's input (1 to 64), numbered from `first`. All MACs are verified
   * before any packet is decrypted.
   *
   * @returns an object that the next call may overwrite.
   */
  open(count: number, first: PacketNumber): OpenedBatch;
  /** Overwrites the keys. */
  destroy(): void;
}

/** An implementation of the packet cryptography. */
export interface Engine {
  readonly name: "native" | "portable";
  readonly workspace: Workspace;
  /** Creates a cipher with a copy of the keys. */
  createCipher(keys: DirectionKeys): PacketCipher;
}
