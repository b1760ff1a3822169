/** Turns a stream of packets, cut anywhere, back into data (section 1.8; the other half of `proto_crypt`). */
import type { DirectionKeys, Engine, PacketCipher, Workspace } from "./engine/engine.ts";
import { BATCH_PACKETS, openedSize, PACKET_SIZE } from "./packet.ts";
import { PacketNumber } from "./packet-number.ts";
import { PacketError } from "./protocol-error.ts";

const BATCH_SIZE = BATCH_PACKETS * PACKET_SIZE;

/** The receiving end of one direction. */
export class Opener {
  readonly #workspace: Workspace;
  readonly #cipher: PacketCipher;
  readonly #next: PacketNumber;
  /** The start of a packet whose rest has not arrived; made when it is first needed, for most connections are idle. */
  #unfinished: Uint8Array | undefined;
  #unfinishedLength = 0;
  #failure: PacketError | undefined;
  #destroyed = false;

  /**
   * @param keys are copied.
   * @param first number of the first packet: 0 in every session.
   */
  constructor(engine: Engine, keys: DirectionKeys, first?: bigint) {
    this.#workspace = engine.workspace;
    this.#cipher = engine.createCipher(keys);
    this.#next = new PacketNumber(first);
  }

  /** Why the stream was refused, once it was. */
  get failure(): PacketError | undefined {
    return this.#failure;
  }

  /**
   * Takes the next bytes of the stream and gives the data of all packets that they complete. At the first packet that
   * is not genuine, the data before it is given, `failure` is set, and everything that follows is ignored: so the
   * result does not depend on how the stream was cut.
   *
   * @param out receives the data; at least `openedSize(wire.length)` bytes.
   * @returns how many bytes were written.
   * @throws RangeError if `out` is too small; Error after `destroy()`.
   */
  open(wire: Uint8Array, out: Uint8Array): number {
    if (this.#destroyed) throw new Error("the opener has been destroyed");
    const size = openedSize(wire.length);
    if (out.length < size) throw new RangeError(`output has ${out.length} bytes, ${size} are needed`);
    const { input, output } = this.#workspace;
    let taken = 0;
    let written = 0;
    while (taken < wire.length && this.#failure === undefined) {
      // The unfinished packet first, then as much as a batch can hold.
      const before = this.#unfinishedLength;
      if (before > 0) input.set(this.#unfinished!.subarray(0, before));
      const added = Math.min(wire.length - taken, BATCH_SIZE - before);
      input.set(added === wire.length ? wire : wire.subarray(taken, taken + added), before);
      taken += added;
      const count = Math.floor((before + added) / PACKET_SIZE);
      this.#unfinishedLength = before + added - count * PACKET_SIZE;
      if (this.#unfinishedLength > 0) this.#keep(input.subarray(count * PACKET_SIZE, before + added));
      if (count > 0) {
        const length = this.#openBatch(count);
        out.set(output.subarray(0, length), written);
        written += length;
      }
    }
    return written;
  }

  /**
   * To be called when the stream has ended. An end inside a packet is a failure, ERR_SPIPED_TRUNCATED; one between two
   * packets can't be told from a true end.
   *
   * @returns `failure`.
   */
  end(): PacketError | undefined {
    if (this.#unfinishedLength > 0) this.#fail("ERR_SPIPED_TRUNCATED", 0, "stream ended inside a packet");
    return this.#failure;
  }

  /** Overwrites the keys and the unfinished packet. */
  destroy(): void {
    this.#destroyed = true;
    this.#cipher.destroy();
    this.#unfinished?.fill(0);
  }

  #openBatch(count: number): number {
    if (!this.#next.has(count)) throw new Error("the packet numbers are used up");
    const { length, packets, refused } = this.#cipher.open(count, this.#next);
    if (refused === "mac") this.#fail("ERR_SPIPED_BAD_MAC", packets, "packet is not genuine");
    if (refused === "length") this.#fail("ERR_SPIPED_BAD_LENGTH", packets, "packet has an illegal length");
    this.#next.advance(packets);
    return length;
  }

  #keep(rest: Uint8Array): void {
    this.#unfinished ??= new Uint8Array(PACKET_SIZE);
    this.#unfinished.set(rest);
  }

  #fail(code: PacketError["code"], offset: number, message: string): void {
    this.#unfinishedLength = 0;
    this.#failure ??= new PacketError(code, this.#next.at(offset), message);
  }
}
