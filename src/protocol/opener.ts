/** Decrypts a stream of packets, split anywhere (section 1.8 of the protocol; the other half of `proto_crypt`). */
import { convertCopy } from "./convert-copy.ts";
import {
  type DirectionKeys,
  type Engine,
  INPUT_OFFSET,
  type PacketCipher,
  type Workspace,
} from "./engine/engine.ts";
import type { Output } from "./engine/output-pool.ts";
import { BATCH_PACKETS, openedSize, PACKET_SIZE } from "./packet.ts";
import { PacketNumber } from "./packet-number.ts";
import { PacketError } from "./protocol-error.ts";

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
    const size = openedSize(wire.length);
    if (out.length < size) throw new RangeError(`output has ${out.length} bytes, ${size} are needed`);
    return convertCopy(this.#workspace, wire, out, (length, output) => this.openRead(length, output));
  }

  /**
   * Processes the first `length` bytes of the workspace's read buffer like `open`, and writes the data to `output`.
   *
   * @returns the number of bytes written.
   * @throws Error after `destroy()`, or if the packet numbers are exhausted.
   */
  openRead(length: number, output: Output): number {
    if (this.#destroyed) throw new Error("the opener has been destroyed");
    if (this.#failure !== undefined) return 0;
    const { input } = this.#workspace;
    const end = INPUT_OFFSET + length;
    let start = INPUT_OFFSET;
    if (this.#partialLength > 0) {
      start -= this.#partialLength;
      input.set(this.#partialPacket!.subarray(0, this.#partialLength), start);
    }
    let left = Math.floor((end - start) / PACKET_SIZE);
    this.#partialLength = end - start - left * PACKET_SIZE;
    if (this.#partialLength > 0) this.#savePartial(input.subarray(end - this.#partialLength, end));
    let written = 0;
    while (left > 0 && this.#failure === undefined) {
      const count = Math.min(left, BATCH_PACKETS);
      written += this.#openBatch(start, count, output, written);
      start += count * PACKET_SIZE;
      left -= count;
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

  #openBatch(start: number, count: number, output: Output, at: number): number {
    if (!this.#next.has(count)) throw new Error("packet numbers exhausted");
    const { length, packets, rejected } = this.#cipher.open(start, count, this.#next, output, at);
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
