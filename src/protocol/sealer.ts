/** Encrypts data into packets (section 1.8 of the protocol; one half of Tarsnap's `proto_crypt`). */
import type { DirectionKeys, Engine, PacketCipher, Workspace } from "./engine/engine.ts";
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
    if (this.#destroyed) throw new Error("the sealer has been destroyed");
    if (out.length < size) throw new RangeError(`output has ${out.length} bytes, ${size} are needed`);
    if (!this.#next.has(size / PACKET_SIZE)) throw new Error("packet numbers exhausted");
    const { input, output } = this.#workspace;
    let written = 0;
    for (let start = 0; start < data.length; start += BATCH_DATA) {
      const length = Math.min(data.length - start, BATCH_DATA);
      const sealed = sealedSize(length);
      input.set(length === data.length ? data : data.subarray(start, start + length));
      this.#cipher.seal(length, this.#next);
      this.#next.advance(sealed / PACKET_SIZE);
      out.set(output.subarray(0, sealed), written);
      written += sealed;
    }
    return written;
  }

  /** Overwrites the keys. */
  destroy(): void {
    this.#destroyed = true;
    this.#cipher.destroy();
  }
}
