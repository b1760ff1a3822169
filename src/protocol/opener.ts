/** Decrypts a stream of packets, split anywhere (section 1.8 of the protocol; the other half of `proto_crypt`). */
import type { DirectionKeys, Engine, PacketCipher, Workspace } from "./engine/engine.ts";
import { BATCH_PACKETS, openedSize, PACKET_SIZE } from "./packet.ts";
import { PacketNumber } from "./packet-number.ts";
import { PacketError } from "./protocol-error.ts";

const BATCH_SIZE = BATCH_PACKETS * PACKET_SIZE;

/** Opens the packets that this side receives. */
export class Opener {
  readonly #workspace: Workspace;
  readonly #cipher: PacketCipher;
  readonly #next: PacketNumber;
  /** The start of a packet that has not arrived completely; allocated on first use, since most connections are idle. */
  #partialPacket: Uint8Array | undefined;
  #partialLength = 0;
  #failure: PacketError | undefined;
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

  /** Why the stream was rejected; undefined if it was not. */
  get failure(): PacketError | undefined {
    return this.#failure;
  }

  /**
   * Processes the next bytes of the stream and writes the data of all packets that they complete. At the first invalid
   * packet, it writes the data before that packet, sets `failure`, and ignores all further bytes, so that the result
   * does not depend on how the stream was split.
   *
   * @param out - receives the data; at least `openedSize(wire.length)` bytes.
   * @returns the number of bytes written.
   * @throws RangeError if `out` is too small; Error after `destroy()`, or if the packet numbers are exhausted.
   */
  open(wire: Uint8Array, out: Uint8Array): number {
    if (this.#destroyed) throw new Error("the opener has been destroyed");
    const size = openedSize(wire.length);
    if (out.length < size) throw new RangeError(`output has ${out.length} bytes, ${size} are needed`);
    const { input, output } = this.#workspace;
    let taken = 0;
    let written = 0;
    while (taken < wire.length && this.#failure === undefined) {
      // The partial packet first, then as many bytes as fit in a batch.
      const before = this.#partialLength;
      if (before > 0) input.set(this.#partialPacket!.subarray(0, before));
      const added = Math.min(wire.length - taken, BATCH_SIZE - before);
      input.set(added === wire.length ? wire : wire.subarray(taken, taken + added), before);
      taken += added;
      const count = Math.floor((before + added) / PACKET_SIZE);
      this.#partialLength = before + added - count * PACKET_SIZE;
      if (this.#partialLength > 0) this.#savePartial(input.subarray(count * PACKET_SIZE, before + added));
      if (count > 0) {
        const length = this.#openBatch(count);
        out.set(output.subarray(0, length), written);
        written += length;
      }
    }
    return written;
  }

  /**
   * Call this at the end of the stream. An end inside a packet sets `failure` to ERR_SPIPED_TRUNCATED; a stream
   * truncated between two packets looks complete.
   *
   * @returns `failure`.
   */
  end(): PacketError | undefined {
    if (this.#partialLength > 0) this.#fail("ERR_SPIPED_TRUNCATED", 0, "stream ended inside a packet");
    return this.#failure;
  }

  /** Overwrites the keys and the partial packet. */
  destroy(): void {
    this.#destroyed = true;
    this.#cipher.destroy();
    this.#partialPacket?.fill(0);
  }

  #openBatch(count: number): number {
    if (!this.#next.has(count)) throw new Error("packet numbers exhausted");
    const { length, packets, rejected } = this.#cipher.open(count, this.#next);
    if (rejected === "mac") this.#fail("ERR_SPIPED_BAD_MAC", packets, "packet has an invalid MAC");
    if (rejected === "length") this.#fail("ERR_SPIPED_BAD_LENGTH", packets, "packet has an invalid length");
    this.#next.advance(packets);
    return length;
  }

  #savePartial(rest: Uint8Array): void {
    this.#partialPacket ??= new Uint8Array(PACKET_SIZE);
    this.#partialPacket.set(rest);
  }

  #fail(code: PacketError["code"], offset: number, message: string): void {
    this.#partialLength = 0;
    this.#failure ??= new PacketError(code, this.#next.at(offset), message);
  }
}
