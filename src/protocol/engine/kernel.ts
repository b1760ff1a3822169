/** The WebAssembly kernel and the layout of its memory; kernel.wat documents its functions and the fixed part. */
import {
  BATCH_PACKETS,
  PACKET_BLOCKS,
  PACKET_CIPHERTEXT_SIZE,
  PACKET_MAC_SIZE,
  PACKET_SIZE,
} from "../packet.ts";
import { INPUT_OFFSET, READ_BUFFER_SIZE, type Workspace } from "./engine.ts";
import { KERNEL_BASE64 } from "./kernel-bytes.ts";
import { KeyStore } from "./key-store.ts";
import { KeystreamLines, LINE_KEYSTREAM_OFFSET, LINES_SIZE } from "./keystream-lines.ts";
import { OutputPool, SHORT_PACKETS } from "./output-pool.ts";

/** Bytes of a block of SHA-256. */
export const HASH_BLOCK = 64;
/** Bytes of counter blocks or keystream per packet. */
export const PACKET_KEYSTREAM_SIZE = PACKET_BLOCKS * 16;
/** Bytes of HMAC's inner hash: key ^ ipad, ciphertext, packet number. */
const HASHED_SIZE = HASH_BLOCK + PACKET_CIPHERTEXT_SIZE + 8;
const SLOT_SIZE = 1104;

/** An exported constant. */
interface Global {
  readonly value: number;
}

/** The WebAssembly kernel's exports. */
export interface Kernel {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly COUNTERS: Global;
  readonly LINE: Global;
  readonly INPUT: Global;
  readonly SLOTS: Global;
  readonly RECEIVED: Global;
  readonly EXPECTED: Global;
  readonly INNER: Global;
  readonly OPAD: Global;
  readonly HEAP: Global;
  readonly decrypted: { readonly value: number };
  writeCounters(count: number, high: number, low: number): void;
  number(line: number, count: number, high: number, low: number): void;
  encrypt(input: number, length: number, output: number): void;
  layOut(input: number, count: number): void;
  decrypt(input: number, count: number, output: number): number;
  initialize(): void;
  prepare(): void;
  tag(line: number, count: number, target: number, stride: number): void;
  sealOne(
    line: number,
    key: number,
    input: number,
    length: number,
    output: number,
    high: number,
    low: number,
  ): void;
  tagOne(line: number, output: number): void;
  layOutOne(line: number, input: number, high: number, low: number): void;
  openOne(line: number, key: number, input: number, output: number): number;
  wipe(): void;
}

/** Types for what Node's own types lack. */
const { WebAssembly } = globalThis as unknown as {
  WebAssembly?: {
    validate(bytes: Uint8Array): boolean;
    Module: new (bytes: Uint8Array) => object;
    Instance: new (module: object) => { exports: unknown };
  };
};

const KERNEL = Buffer.from(KERNEL_BASE64, "base64");

/** Returns false if WebAssembly is disabled or lacks SIMD. */
export function kernelIsAvailable(): boolean {
  return WebAssembly?.validate(KERNEL) === true;
}

/** Views of the memory, each created when it is used first: a start needs few of them. */
class Views {
  readonly #create: (index: number) => Uint8Array;
  readonly #views: (Uint8Array | undefined)[] = [];

  constructor(create: (index: number) => Uint8Array) {
    this.#create = create;
  }

  at(index: number): Uint8Array {
    this.#views[index] ??= this.#create(index);
    return this.#views[index];
  }
}

/** A kernel with cached views of its memory. */
export class KernelWorkspace implements Workspace {
  readonly kernel: Kernel;
  /** Addresses in the memory that are used for each packet. */
  readonly inputAddress: number;
  readonly expectedAddress: number;
  /** Address of the line for ciphers without one of their own. */
  readonly lineAddress: number;
  readonly input: Buffer;
  readonly readBuffer: Buffer;
  readonly outputs: OutputPool;
  readonly lines: KeystreamLines;
  readonly keyStore = new KeyStore();
  /** Addresses of the outputs, by number. */
  readonly outputAddresses: number[] = [];
  /** The inner hash's input of the first packets in each output, by number and packet. */
  readonly outputHashed: Uint8Array[][] = [];
  /** The same for the packets at the start of the read buffer. */
  readonly inputHashed: readonly Uint8Array[];
  /** The same for the slots. */
  readonly slots: Views;
  /** Keys and keystream of the line for ciphers without one of their own. */
  readonly keys: Uint8Array;
  readonly keystream: Uint8Array;
  /** Views of the first N packets' counter blocks, indexed by N. */
  readonly counters: Views;
  /** Views of the first N packets' received and expected MACs, indexed by N. */
  readonly received: Views;
  readonly expected: Views;
  readonly inner: Buffer;
  readonly opad: Uint8Array;

  constructor() {
    const module = new WebAssembly!.Module(KERNEL);
    const kernel = new WebAssembly!.Instance(module).exports as Kernel;
    const view = (start: number, length: number) => Buffer.from(kernel.memory.buffer, start, length);
    const upTo = (start: Global, size: number) => new Views((count) => view(start.value, count * size));
    const hashed = (start: number) =>
      Array.from({ length: SHORT_PACKETS }, (_, i) =>
        view(start - HASH_BLOCK + i * PACKET_SIZE, HASHED_SIZE),
      );
    this.kernel = kernel;
    this.inputAddress = kernel.INPUT.value;
    this.expectedAddress = kernel.EXPECTED.value;
    this.lineAddress = kernel.LINE.value;
    this.input = view(kernel.INPUT.value, INPUT_OFFSET + READ_BUFFER_SIZE);
    this.readBuffer = this.input.subarray(INPUT_OFFSET);
    this.inputHashed = hashed(kernel.INPUT.value + INPUT_OFFSET);
    this.slots = new Views((slot) => view(kernel.SLOTS.value + slot * SLOT_SIZE, HASHED_SIZE));
    this.keys = view(kernel.LINE.value, HASH_BLOCK + PACKET_MAC_SIZE);
    this.keystream = view(kernel.LINE.value + LINE_KEYSTREAM_OFFSET, BATCH_PACKETS * PACKET_KEYSTREAM_SIZE);
    this.counters = upTo(kernel.COUNTERS, PACKET_KEYSTREAM_SIZE);
    this.received = upTo(kernel.RECEIVED, PACKET_MAC_SIZE);
    this.expected = upTo(kernel.EXPECTED, PACKET_MAC_SIZE);
    this.inner = view(kernel.INNER.value, BATCH_PACKETS * PACKET_MAC_SIZE);
    this.opad = view(kernel.OPAD.value, HASH_BLOCK);
    kernel.initialize();

    this.lines = new KeystreamLines(view, kernel.HEAP.value);
    let free = kernel.HEAP.value + LINES_SIZE;
    this.outputs = new OutputPool((index, size) => {
      const address = free + HASH_BLOCK;
      free = Math.ceil((address + size) / HASH_BLOCK) * HASH_BLOCK;
      this.outputAddresses[index] = address;
      this.outputHashed[index] = hashed(address);
      return view(address, size);
    });
  }
}
