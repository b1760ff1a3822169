/**
 * The port between the packet layer and the cryptography that carries it in bulk. Two engines stand behind it:
 * `native` (Node's OpenSSL) and `portable` (@noble); both give the same bytes.
 *
 * An engine works on one batch at a time, in a workspace that all its ciphers share: whoever fills `input` calls the
 * cipher and empties `output` before anyone else can.
 */
import type { PacketNumber } from "../packet-number.ts";

/** Keys of one direction of a session: AES-256 (E) and HMAC-SHA256 (H), 32 bytes each (section 1.7). */
export interface DirectionKeys {
  readonly encrypt: Uint8Array;
  readonly mac: Uint8Array;
}

/** A batch on its way: up to 64 packets, or the data of as many. Neither array is ever replaced. */
export interface Workspace {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
}

/** What came of a batch of packets. */
export interface OpenedBatch {
  /** Bytes of data in the workspace's output, from all packets before the first that was refused. */
  length: number;
  /** How many packets were genuine and well-formed, counted up to the first that was not. */
  packets: number;
  /** Why the next packet was refused, if one was. */
  refused: "mac" | "length" | undefined;
}

/** Seals and opens batches with the keys of one direction. */
export interface PacketCipher {
  /**
   * Seals the first `length` bytes of the workspace's input (1 to 65,536; what follows may be overwritten with zeros).
   * The packets, numbered from `first`, are in its output.
   */
  seal(length: number, first: PacketNumber): void;
  /**
   * Opens the first `count` packets of the workspace's input (1 to 64), numbered from `first`. All tags are verified
   * before anything is decrypted.
   *
   * @returns an object that the next call overwrites.
   */
  open(count: number, first: PacketNumber): OpenedBatch;
  /** Overwrites the keys. */
  destroy(): void;
}

/** A way to do the cryptography. */
export interface Engine {
  readonly name: "native" | "portable";
  readonly workspace: Workspace;
  /** The keys are copied. */
  createCipher(keys: DirectionKeys): PacketCipher;
}
