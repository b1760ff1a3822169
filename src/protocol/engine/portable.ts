/**
 * The portable engine: @noble's AES and SHA-256, packet by packet. It needs no cipher or hash of Node's, and it is the second
 * implementation that tests compare the native engine with.
 */
import { timingSafeEqual } from "node:crypto";
import { ctr } from "@noble/ciphers/aes.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { BATCH_PACKETS, PACKET_CIPHERTEXT, PACKET_DATA, PACKET_SIZE } from "../packet.ts";
import type { PacketNumber } from "../packet-number.ts";
import type { DirectionKeys, Engine, OpenedBatch, PacketCipher } from "./engine.ts";

const workspace = {
  input: new Uint8Array(BATCH_PACKETS * PACKET_SIZE),
  output: new Uint8Array(BATCH_PACKETS * PACKET_SIZE),
};

class PortableCipher implements PacketCipher {
  readonly #encrypt: Uint8Array;
  readonly #mac: Uint8Array;

  constructor(keys: DirectionKeys) {
    this.#encrypt = Uint8Array.from(keys.encrypt);
    this.#mac = Uint8Array.from(keys.mac);
  }

  seal(length: number, first: PacketNumber): void {
    const { input, output } = workspace;
    const padded = new Uint8Array(PACKET_CIPHERTEXT);
    for (let i = 0; i * PACKET_DATA < length; i += 1) {
      const start = i * PACKET_DATA;
      const data = input.subarray(start, Math.min(start + PACKET_DATA, length));
      padded.fill(0).set(data);
      new DataView(padded.buffer).setUint32(PACKET_DATA, data.length);
      const block = counterBlock(first.at(i));
      const ciphertext = ctr(this.#encrypt, block).encrypt(padded);
      output.set(ciphertext, i * PACKET_SIZE);
      output.set(this.#tag(ciphertext, block), i * PACKET_SIZE + PACKET_CIPHERTEXT);
    }
  }

  open(count: number, first: PacketNumber): OpenedBatch {
    const { input, output } = workspace;
    const packet = (i: number) => input.subarray(i * PACKET_SIZE, (i + 1) * PACKET_SIZE);
    let genuine = 0;
    while (genuine < count) {
      const tag = this.#tag(packet(genuine).subarray(0, PACKET_CIPHERTEXT), counterBlock(first.at(genuine)));
      if (!timingSafeEqual(tag, packet(genuine).subarray(PACKET_CIPHERTEXT))) break;
      genuine += 1;
    }
    let written = 0;
    for (let i = 0; i < genuine; i += 1) {
      const block = counterBlock(first.at(i));
      const padded = ctr(this.#encrypt, block).decrypt(packet(i).subarray(0, PACKET_CIPHERTEXT));
      const length = new DataView(padded.buffer, padded.byteOffset).getUint32(PACKET_DATA);
      if (length < 1 || length > PACKET_DATA) return { length: written, packets: i, refused: "length" };
      output.set(padded.subarray(0, length), written);
      written += length;
    }
    return { length: written, packets: genuine, refused: genuine < count ? "mac" : undefined };
  }

  destroy(): void {
    this.#encrypt.fill(0);
    this.#mac.fill(0);
  }

  /** HMAC-SHA256(H, ciphertext || BE64(packet number)). */
  #tag(ciphertext: Uint8Array, block: Uint8Array): Uint8Array {
    return hmac.create(sha256, this.#mac).update(ciphertext).update(block.subarray(0, 8)).digest();
  }
}

/** BE64(packet number) || BE64(0): where a packet's keystream begins. */
function counterBlock(number: bigint): Uint8Array {
  const block = new Uint8Array(16);
  new DataView(block.buffer).setBigUint64(0, number);
  return block;
}

/** The engine that runs anywhere. */
export const portableEngine: Engine = {
  name: "portable",
  workspace,
  createCipher: (keys) => new PortableCipher(keys),
};
