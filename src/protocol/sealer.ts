/** Encrypts data into packets (section 1.8 of the protocol; one half of Tarsnap's `proto_crypt`). */
import { convertCopy } from "./convert-copy.ts";
import {
  type DirectionKeys,
  type Engine,
  INPUT_OFFSET,
  type PacketCipher,
  type Workspace,
} from "./engine/engine.ts";
import type { Output } from "./engine/output-pool.ts";
import { BATCH_PACKETS, PACKET_DATA_SIZE, PACKET_SIZE, sealedSize } from "./packet.ts";
import { PacketNumber } from "./packet-number.ts";

const BATCH_DATA = BATCH_PACKETS * PACKET_DATA_SIZE;

/** Seals the packets that this side sends. */
export class Sealer {
  readonly #workspace: Workspace;
  readonly #cipher: PacketCipher;
  readonly #next: PacketNumber;
  #destroyed = false;

  /**
   * @param keys - keys of the direction, copied.
   * @param first - number of the first packet; every session starts at 0.
   */
  constructor(engine: Engine, keys: DirectionKeys, first?: bigint) {
    this.#workspace = engine.workspace;
    this.#cipher = engine.createCipher(keys);
    this.#next = new PacketNumber(first);
  }

  /**
   * Seals `data`, of any length, into packets of up to 1024 bytes of data. Nothing is buffered.
   *
   * @param out - receives the packets; at least `sealedSize(data.length)` bytes.
   * @returns the number of bytes written.
   * @throws RangeError if `out` is too small; Error after `destroy()`, or if fewer packet numbers are left than `data`
   * needs.
   */
  seal(data: Uint8Array, out: Uint8Array): number {
    const size = sealedSize(data.length);
    if (out.length < size) throw new RangeError(`output has ${out.length} bytes, ${size} are needed`);
    this.#check(size / PACKET_SIZE);
    return convertCopy(this.#workspace, data, out, (length, output) => this.sealRead(length, output));
  }

  /**
   * Seals the first `length` bytes of the workspace's read buffer into `output`.
   *
   * @returns the number of bytes written.
   * @throws Error after `destroy()`, or if too few packet numbers are left.
   */
  sealRead(length: number, output: Output): number {
    this.#check(Math.ceil(length / PACKET_DATA_SIZE));
    let written = 0;
    for (let start = 0; start < length; start += BATCH_DATA) {
      const part = Math.min(length - start, BATCH_DATA);
      this.#cipher.seal(INPUT_OFFSET + start, part, this.#next, output, written);
      const count = Math.ceil(part / PACKET_DATA_SIZE);
      this.#next.advance(count);
      written += count * PACKET_SIZE;
    }
    return written;
  }

  /** Overwrites the keys. */
  destroy(): void {
    this.#destroyed = true;
    this.#cipher.destroy();
  }

  #check(packets: number): void {
    if (this.#destroyed) throw new Error("the sealer has been destroyed");
    if (!this.#next.has(packets)) throw new Error("packet numbers exhausted");
  }
}
