/**
 * Memory for packets and data that are written to sockets. A write that the kernel accepts immediately releases its
 * output at once, so a busy process uses one or two outputs again and again. Those of slow sockets are held until the
 * kernel accepts them; when none is left, results are copied from the reserved output to a buffer of their own.
 */
import { PACKET_SIZE, sealedSize } from "../packet.ts";
import { READ_BUFFER_SIZE } from "./engine.ts";

/** Maximum bytes to seal or open into a small output. */
const SMALL_INPUT_SIZE = 16 * 1024;
/** Sizes of outputs, in bytes. */
const SMALL_OUTPUT_SIZE = sealedSize(SMALL_INPUT_SIZE);
const LARGE_OUTPUT_SIZE = sealedSize(READ_BUFFER_SIZE);
/** Numbers of outputs. */
const SMALL_OUTPUTS = 32;
const LARGE_OUTPUTS = 8;

/** Packets in a short message. */
export const SHORT_PACKETS = 4;

/** Memory for the result of one read. */
export class Output {
  /** Number of this output, from 0. */
  readonly index: number;
  readonly bytes: Buffer;
  /** The first N packets, indexed by N. */
  readonly #packets: (Buffer | undefined)[] = [];

  constructor(index: number, bytes: Buffer) {
    this.index = index;
    this.bytes = bytes;
  }

  /** Returns the first `length` bytes. */
  first(length: number): Buffer {
    if (length > SHORT_PACKETS * PACKET_SIZE || length % PACKET_SIZE !== 0)
      return this.bytes.subarray(0, length);
    const packets = this.#packets;
    packets[length / PACKET_SIZE] ??= this.bytes.subarray(0, length);
    return packets[length / PACKET_SIZE]!;
  }
}

/** The outputs of an engine, created when they are used first. */
export class OutputPool {
  readonly #allocate: (index: number, size: number) => Buffer;
  readonly #small: Output[] = [];
  readonly #large: Output[] = [];
  #smallLeft = SMALL_OUTPUTS;
  #largeLeft = LARGE_OUTPUTS;
  #created = 0;
  /** An output that is never acquired: its contents are valid until the next call to the engine. */
  readonly reserved: Output;

  /** @param allocate - returns memory for the output of a number, of a size in bytes. */
  constructor(allocate: (index: number, size: number) => Buffer) {
    this.#allocate = allocate;
    this.reserved = this.#create(LARGE_OUTPUT_SIZE);
  }

  /** Returns an output for the result of `length` bytes, at most `READ_BUFFER_SIZE`; undefined if none is free. */
  acquire(length: number): Output | undefined {
    if (length <= SMALL_INPUT_SIZE) {
      const free = this.#small.pop();
      if (free !== undefined || this.#smallLeft === 0) return free;
      this.#smallLeft -= 1;
      return this.#create(SMALL_OUTPUT_SIZE);
    }
    const free = this.#large.pop();
    if (free !== undefined || this.#largeLeft === 0) return free;
    this.#largeLeft -= 1;
    return this.#create(LARGE_OUTPUT_SIZE);
  }

  #create(size: number): Output {
    const index = this.#created;
    this.#created += 1;
    return new Output(index, this.#allocate(index, size));
  }

  /** Returns an acquired output. The caller must not use it afterwards. */
  release(output: Output): void {
    (output.bytes.length === SMALL_OUTPUT_SIZE ? this.#small : this.#large).push(output);
  }
}
