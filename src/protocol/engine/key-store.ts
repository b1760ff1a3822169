/**
 * Holds what ciphers need to start HMAC, in a few large buffers: a buffer of its own would take 400 bytes more for each
 * direction of an idle connection.
 */

/** Bytes of an entry: key ^ ipad, and the SHA-256 state after key ^ opad. */
const ENTRY_SIZE = 64 + 32;
/** Entries per buffer. */
const BUFFER_ENTRIES = 128;

/** The keys of an engine's ciphers. */
export class KeyStore {
  readonly #buffers: Buffer[] = [];
  readonly #free: number[] = [];

  /** Stores a copy of `keys`, 96 bytes. Returns the number of the entry. */
  add(keys: Uint8Array): number {
    if (this.#free.length === 0) {
      const first = this.#buffers.length * BUFFER_ENTRIES;
      this.#buffers.push(Buffer.alloc(BUFFER_ENTRIES * ENTRY_SIZE));
      for (let i = BUFFER_ENTRIES - 1; i >= 0; i -= 1) this.#free.push(first + i);
    }
    const entry = this.#free.pop()!;
    this.#bufferOf(entry).set(keys.subarray(0, ENTRY_SIZE), startOf(entry));
    return entry;
  }

  /** Copies the keys of an entry to the start of `target`. */
  copy(entry: number, target: Uint8Array): void {
    const start = startOf(entry);
    this.#bufferOf(entry).copy(target, 0, start, start + ENTRY_SIZE);
  }

  /** Overwrites an entry and makes it available again. */
  remove(entry: number): void {
    const start = startOf(entry);
    this.#bufferOf(entry).fill(0, start, start + ENTRY_SIZE);
    this.#free.push(entry);
  }

  #bufferOf(entry: number): Buffer {
    return this.#buffers[Math.floor(entry / BUFFER_ENTRIES)]!;
  }
}

function startOf(entry: number): number {
  return (entry % BUFFER_ENTRIES) * ENTRY_SIZE;
}
