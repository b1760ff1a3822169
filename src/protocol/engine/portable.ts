/**
 * The portable engine: AES and SHA-256 of `@noble`, packet by packet. It uses no cipher or hash from Node, and tests
 * compare the native engine with it.
 */
import { timingSafeEqual } from "node:crypto";
import { ctr } from "@noble/ciphers/aes.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { PACKET_CIPHERTEXT_SIZE, PACKET_DATA_SIZE, PACKET_SIZE } from "../packet.ts";
import type { PacketNumber } from "../packet-number.ts";
import {
  type DirectionKeys,
  type Engine,
  INPUT_OFFSET,
  type OpenedBatch,
  type PacketCipher,
  READ_BUFFER_SIZE,
} from "./engine.ts";
import { type Output, OutputPool } from "./output-pool.ts";

const input = Buffer.alloc(INPUT_OFFSET + READ_BUFFER_SIZE);
const workspace = {
  input,
  readBuffer: input.subarray(INPUT_OFFSET),
  outputs: new OutputPool((_index, size) => Buffer.alloc(size)),
};

class PortableCipher implements PacketCipher {
  readonly #encryptionKey: Uint8Array;
  readonly #macKey: Uint8Array;

  constructor(keys: DirectionKeys) {
    this.#encryptionKey = Uint8Array.from(keys.encrypt);
    this.#macKey = Uint8Array.from(keys.mac);
  }

  seal(start: number, length: number, first: PacketNumber, output: Output, at: number): void {
    const padded = new Uint8Array(PACKET_CIPHERTEXT_SIZE);
    for (let i = 0; i * PACKET_DATA_SIZE < length; i += 1) {
      const from = start + i * PACKET_DATA_SIZE;
      const data = input.subarray(from, Math.min(from + PACKET_DATA_SIZE, start + length));
      padded.fill(0).set(data);
      new DataView(padded.buffer).setUint32(PACKET_DATA_SIZE, data.length);
      const block = counterBlock(first.at(i));
      const ciphertext = ctr(this.#encryptionKey, block).encrypt(padded);
      output.bytes.set(ciphertext, at + i * PACKET_SIZE);
      output.bytes.set(this.#computeMac(ciphertext, block), at + i * PACKET_SIZE + PACKET_CIPHERTEXT_SIZE);
    }
  }

  open(start: number, count: number, first: PacketNumber, output: Output, at: number): OpenedBatch {
    const packet = (i: number) => input.subarray(start + i * PACKET_SIZE, start + (i + 1) * PACKET_SIZE);
    let valid = 0;
    while (valid < count) {
      const mac = this.#computeMac(
        packet(valid).subarray(0, PACKET_CIPHERTEXT_SIZE),
        counterBlock(first.at(valid)),
      );
      if (!timingSafeEqual(mac, packet(valid).subarray(PACKET_CIPHERTEXT_SIZE))) break;
      valid += 1;
    }
    let written = 0;
    for (let i = 0; i < valid; i += 1) {
      const block = counterBlock(first.at(i));
      const padded = ctr(this.#encryptionKey, block).decrypt(packet(i).subarray(0, PACKET_CIPHERTEXT_SIZE));
      const length = new DataView(padded.buffer, padded.byteOffset).getUint32(PACKET_DATA_SIZE);
      if (length < 1 || length > PACKET_DATA_SIZE) return { length: written, packets: i, rejected: "length" };
      output.bytes.set(padded.subarray(0, length), at + written);
      written += length;
    }
    return { length: written, packets: valid, rejected: valid < count ? "mac" : undefined };
  }

  destroy(): void {
    this.#encryptionKey.fill(0);
    this.#macKey.fill(0);
  }

  /** Returns HMAC-SHA256(H, ciphertext || BE64(packet number)). */
  #computeMac(ciphertext: Uint8Array, block: Uint8Array): Uint8Array {
    return hmac.create(sha256, this.#macKey).update(ciphertext).update(block.subarray(0, 8)).digest();
  }
}

/** Returns a packet's first counter block, BE64(packet number) || BE64(0). */
function counterBlock(number: bigint): Uint8Array {
  const block = new Uint8Array(16);
  new DataView(block.buffer).setBigUint64(0, number);
  return block;
}

/** The engine for runtimes without the native one. */
export const portableEngine: Engine = {
  name: "portable",
  workspace,
  createCipher: (keys) => new PortableCipher(keys),
};
