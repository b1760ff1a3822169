/**
 * The interface between the packet layer and bulk cryptography. There are two engines, `native` (Node's OpenSSL) and
 * `portable` (`@noble`), which produce the same bytes.
 *
 * An engine has one workspace, which all its ciphers share. Sockets read into its input, a cipher seals or opens one
 * batch at a time from there into an output, and the output is written to a socket: bytes are not copied in between. The
 * caller must process its input synchronously, before another caller can overwrite it.
 */
import { BATCH_PACKETS, PACKET_DATA_SIZE, PACKET_SIZE } from "../packet.ts";
import type { PacketNumber } from "../packet-number.ts";
import type { Output, OutputPool } from "./output-pool.ts";

/** Maximum bytes to seal or open at a time: two batches of data. */
export const READ_BUFFER_SIZE = 2 * BATCH_PACKETS * PACKET_DATA_SIZE;
/** Offset of the read buffer in the input. A partial packet is put in front of the bytes that complete it. */
export const INPUT_OFFSET = PACKET_SIZE + 28;

/** Keys of one direction of a session: AES-256 (E) and HMAC-SHA256 (H), 32 bytes each (section 1.7). */
export interface DirectionKeys {
  readonly encrypt: Uint8Array;
  readonly mac: Uint8Array;
}

/** Work of an engine that can wait until nothing else is to be done. The engine's user schedules it. */
export interface Upkeep {
  /** Called when there may be work for `refill`, and from then on for `releaseUnused`; undefined if nobody does it. */
  onWork: (() => void) | undefined;
  /** Computes keystream that the next messages need. */
  refill(): void;
  /** Wipes keystream that was not used since the last call. Returns false if none is left. */
  releaseUnused(): boolean;
}

/** The memory of an engine. Its buffers are never replaced. */
export interface Workspace {
  /** Data to seal or packets to open. Sealing and opening may overwrite it. */
  readonly input: Buffer;
  /** The part of the input from `INPUT_OFFSET` on, `READ_BUFFER_SIZE` bytes. */
  readonly readBuffer: Buffer;
  readonly outputs: OutputPool;
}

/** The result of opening a batch of packets. */
export interface OpenedBatch {
  /** Bytes of data written, from all packets before the first rejected one. */
  length: number;
  /** Number of leading packets with a valid MAC and a valid length. */
  packets: number;
  /** Why the next packet was rejected; undefined if none was. */
  rejected: "mac" | "length" | undefined;
}

/** Seals and opens batches with the keys of one direction. */
export interface PacketCipher {
  /**
   * Seals `length` bytes (1 to 65,536) at `start` of the workspace's input; up to 1023 bytes after them may be zeroed.
   * Writes the packets, numbered from `first`, to `output`, from byte `at` on.
   */
  seal(start: number, length: number, first: PacketNumber, output: Output, at: number): void;
  /**
   * Opens `count` packets (1 to 64) at `start` of the workspace's input, numbered from `first`, and may overwrite them.
   * Writes their data to `output`, from byte `at` on. No packet is decrypted before its MAC is verified.
   *
   * @returns an object that the next call may overwrite.
   */
  open(start: number, count: number, first: PacketNumber, output: Output, at: number): OpenedBatch;
  /** Overwrites the keys. */
  destroy(): void;
}

/** An implementation of the packet cryptography. */
export interface Engine {
  readonly name: "native" | "portable";
  readonly workspace: Workspace;
  /** Undefined if the engine needs none. */
  readonly upkeep?: Upkeep;
  /** Creates a cipher with a copy of the keys. */
  createCipher(keys: DirectionKeys): PacketCipher;
}
