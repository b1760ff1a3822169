/**
 * The native engine: OpenSSL through `node:crypto`, a batch in as few calls as can be.
 *
 *     keystream   one AES-256-ECB update over all counter blocks of the batch    0.15 us/packet (CTR per packet: 2.6)
 *     XOR, lay-out, numbers   one call each into a WebAssembly kernel            see kernel.wat for its memory
 *     tag         inner hash: one one-shot SHA-256 call per packet over a ready-made view   0.7 us/packet
 *                 outer hash: four packets at a time in the kernel                          0.1 us/packet (a call: 0.3)
 *
 * A digest as a `latin1` string that is written back byte for byte costs half of one as a Buffer: there is no
 * ArrayBuffer to make.
 */

import { type Cipher, createCipheriv, hash, timingSafeEqual } from "node:crypto";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import {
  BATCH_PACKETS,
  PACKET_BLOCKS,
  PACKET_CIPHERTEXT,
  PACKET_DATA,
  PACKET_SIZE,
  PACKET_TAG,
} from "../packet.ts";
import type { PacketNumber } from "../packet-number.ts";
import type { DirectionKeys, Engine, OpenedBatch, PacketCipher, Workspace } from "./engine.ts";
import { KERNEL_BASE64 } from "./kernel-bytes.ts";

const KERNEL = Buffer.from(KERNEL_BASE64, "base64");
const HASH_BLOCK = 64;
const SLOT_SIZE = 1104;
const SLOT_HASHED = HASH_BLOCK + PACKET_CIPHERTEXT + 8;
const COUNTERS_SIZE = PACKET_BLOCKS * 16;
/** From so many packets on, a keystream is freed at once. */
const RELEASED = 8;

/** The kernel's exports; what its functions do is said in kernel.wat. */
interface Kernel {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly COUNTERS: { readonly value: number };
  readonly KEYSTREAM: { readonly value: number };
  readonly INPUT: { readonly value: number };
  readonly SLOTS: { readonly value: number };
  readonly OUTPUT: { readonly value: number };
  readonly RECEIVED: { readonly value: number };
  readonly EXPECTED: { readonly value: number };
  readonly IPAD: { readonly value: number };
  readonly INNER: { readonly value: number };
  readonly OPAD: { readonly value: number };
  readonly MIDSTATE: { readonly value: number };
  readonly decrypted: { readonly value: number };
  number(count: number, high: number, low: number): void;
  encrypt(length: number): void;
  layOut(count: number): void;
  decrypt(count: number): number;
  prepare(): void;
  tag(count: number, target: number, stride: number): void;
  wipe(): void;
}

/** What Node's types say too little about. */
const { WebAssembly } = globalThis as unknown as {
  WebAssembly?: {
    validate(bytes: Uint8Array): boolean;
    Module: new (bytes: Uint8Array) => object;
    Instance: new (module: object) => { exports: unknown };
  };
};
const digest = hash as unknown as (algorithm: "sha256", data: Uint8Array, encoding: "latin1") => string;
type Latin1Buffer = Buffer & { latin1Write(text: string, offset: number, length: number): void };

/**
 * Frees buffers at once: what is transferred to a closed port is gone. Left to the garbage collector, the keystreams of
 * hundreds of batches pile up outside of every cache (0.3 us/packet).
 */
class Releaser {
  readonly #closed: MessagePort;

  constructor() {
    const { port1, port2 } = new MessageChannel();
    port1.close();
    port2.close();
    this.#closed = port1;
    // glibc gives memory back to the kernel whenever 128 KiB at the heap's end are free, which a batch's buffers are all
    // the time, and fetching it again means page faults (0.1 us/packet). Once a larger block has been freed, the limit is
    // twice its size. The block itself is never touched and takes no memory.
    this.release(new ArrayBuffer(4 << 20));
  }

  release(buffer: ArrayBuffer): void {
    this.#closed.postMessage(undefined, [buffer]);
  }
}

/** The kernel with views over its memory, each made once. */
class Scratch implements Workspace {
  readonly kernel: Kernel;
  readonly releaser = new Releaser();
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  readonly keystream: Uint8Array;
  /** The tags of so many packets, by their number: as they are, and as they should be. */
  readonly received: readonly Uint8Array[];
  readonly expected: readonly Uint8Array[];
  readonly ipad: Uint8Array;
  readonly inner: Latin1Buffer;
  readonly opad: Uint8Array;
  readonly midstate: Uint8Array;
  /** What the inner hash reads, by slot. */
  readonly slots: readonly Uint8Array[];
  /** The counter blocks of so many packets, by their number. */
  readonly counters: readonly Uint8Array[];

  constructor() {
    const module = new WebAssembly!.Module(KERNEL);
    const kernel = new WebAssembly!.Instance(module).exports as Kernel;
    const view = (start: { value: number }, length: number, offset = 0) =>
      Buffer.from(kernel.memory.buffer, start.value + offset, length) as Buffer as Latin1Buffer;
    this.kernel = kernel;
    this.input = view(kernel.INPUT, BATCH_PACKETS * PACKET_SIZE);
    this.output = view(kernel.OUTPUT, BATCH_PACKETS * PACKET_SIZE);
    this.keystream = view(kernel.KEYSTREAM, BATCH_PACKETS * COUNTERS_SIZE);
    this.ipad = view(kernel.IPAD, HASH_BLOCK);
    this.inner = view(kernel.INNER, BATCH_PACKETS * PACKET_TAG);
    this.opad = view(kernel.OPAD, HASH_BLOCK);
    this.midstate = view(kernel.MIDSTATE, PACKET_TAG);
    this.slots = Array.from({ length: BATCH_PACKETS }, (_, i) =>
      view(kernel.SLOTS, SLOT_HASHED, i * SLOT_SIZE),
    );
    const upTo = (start: { value: number }, size: number) =>
      Array.from({ length: BATCH_PACKETS + 1 }, (_, i) => view(start, i * size));
    this.counters = upTo(kernel.COUNTERS, COUNTERS_SIZE);
    this.received = upTo(kernel.RECEIVED, PACKET_TAG);
    this.expected = upTo(kernel.EXPECTED, PACKET_TAG);
    const blocks = new DataView(kernel.memory.buffer, kernel.COUNTERS.value);
    for (let i = 0; i < BATCH_PACKETS * PACKET_BLOCKS; i += 1)
      blocks.setUint32(i * 16 + 12, i % PACKET_BLOCKS);
  }
}

class NativeCipher implements PacketCipher {
  readonly #scratch: Scratch;
  readonly #aes: Cipher;
  #destroyed = false;
  /** H, padded to a block and XORed with 0x36 (RFC 2104). */
  readonly #ipad = new Uint8Array(HASH_BLOCK);
  /** The state of SHA-256 after H, padded to a block and XORed with 0x5c. */
  readonly #midstate: Uint8Array;
  readonly #opened: OpenedBatch = { length: 0, packets: 0, refused: undefined };

  constructor(scratch: Scratch, { encrypt, mac }: DirectionKeys) {
    this.#scratch = scratch;
    this.#aes = createCipheriv("aes-256-ecb", encrypt, null).setAutoPadding(false);
    const { kernel, opad, midstate } = scratch;
    for (let i = 0; i < HASH_BLOCK; i += 1) {
      const byte = mac[i] ?? 0;
      this.#ipad[i] = byte ^ 0x36;
      opad[i] = byte ^ 0x5c;
    }
    kernel.prepare();
    this.#midstate = Uint8Array.from(midstate);
  }

  seal(length: number, first: PacketNumber): void {
    const { kernel, input } = this.#scratch;
    const count = Math.ceil(length / PACKET_DATA);
    input.fill(0, length, count * PACKET_DATA);
    this.#begin(count, first);
    this.#makeKeystream(count);
    kernel.encrypt(length);
    this.#makeTags(count, kernel.OUTPUT.value + PACKET_CIPHERTEXT, PACKET_SIZE);
  }

  open(count: number, first: PacketNumber): OpenedBatch {
    const { kernel } = this.#scratch;
    const opened = this.#opened;
    this.#begin(count, first);
    kernel.layOut(count);
    this.#makeTags(count, kernel.EXPECTED.value, PACKET_TAG);
    const genuine = this.#countGenuine(count);
    opened.refused = genuine < count ? "mac" : undefined;
    opened.packets = genuine;
    opened.length = 0;
    if (genuine === 0) return opened;
    this.#makeKeystream(genuine);
    opened.length = kernel.decrypt(genuine);
    if (kernel.decrypted.value < genuine) {
      opened.packets = kernel.decrypted.value;
      opened.refused = "length";
    }
    return opened;
  }

  destroy(): void {
    this.#ipad.fill(0);
    this.#midstate.fill(0);
    // Makes OpenSSL free and overwrite its key schedule now, instead of when this object is collected.
    if (!this.#destroyed) this.#aes.final();
    this.#destroyed = true;
    // What the scratch holds may be another connection's by now; it is rewritten with every batch.
    this.#scratch.kernel.wipe();
  }

  /** Puts this cipher's keys and the packets' numbers where hash and AES will read them. */
  #begin(count: number, first: PacketNumber): void {
    const { kernel, ipad, midstate } = this.#scratch;
    ipad.set(this.#ipad);
    midstate.set(this.#midstate);
    kernel.number(count, first.high, first.low);
  }

  #makeKeystream(count: number): void {
    const made = this.#aes.update(this.#scratch.counters[count]!);
    this.#scratch.keystream.set(made);
    // A short one is left to the garbage collector: to release it takes as long as to make it (0.5 us).
    if (count >= RELEASED) this.#scratch.releaser.release(made.buffer as ArrayBuffer);
  }

  /** Writes the tags of the packets in the slots to `target` in the kernel's memory, `stride` bytes apart. */
  #makeTags(count: number, target: number, stride: number): void {
    const { kernel, slots, inner } = this.#scratch;
    for (let i = 0; i < count; i += 1) {
      inner.latin1Write(digest("sha256", slots[i]!, "latin1"), i * PACKET_TAG, PACKET_TAG);
    }
    kernel.tag(count, target, stride);
  }

  /** How many packets have the tag that they should, up to the first that has not. */
  #countGenuine(count: number): number {
    const { received, expected } = this.#scratch;
    if (timingSafeEqual(received[count]!, expected[count]!)) return count;
    const same = (i: number) => {
      const [start, end] = [i * PACKET_TAG, (i + 1) * PACKET_TAG];
      return timingSafeEqual(received[count]!.subarray(start, end), expected[count]!.subarray(start, end));
    };
    let genuine = 0;
    while (same(genuine)) genuine += 1;
    return genuine;
  }
}

/** True where the native engine can run: `crypto.hash` came with Node 20.12, WebAssembly may be off or lack SIMD. */
export function nativeIsAvailable(): boolean {
  return typeof hash === "function" && WebAssembly?.validate(KERNEL) === true;
}

/** Makes the engine: a scratch of 384 KiB, which all connections of the process share. */
export function createNativeEngine(): Engine {
  const scratch = new Scratch();
  return { name: "native", workspace: scratch, createCipher: (keys) => new NativeCipher(scratch, keys) };
}
