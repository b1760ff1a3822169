/**
 * Holds the keys of ciphers in a few large buffers: a buffer of its own would take 400 bytes more for each direction of
 * an idle connection, and V8 moves small arrays, which leaves copies behind.
 *
 * An entry has the MAC keys (H, padded to a block and XORed with 0x36, then the state of SHA-256 after H XORed with 0x5c:
 * RFC 2104) and the encryption key E.
 */

const MAC_KEYS_SIZE = 64 + 32;
const ENTRY_SIZE = MAC_KEYS_SIZE + 32;
/** Entries per buffer. */
const BUFFER_ENTRIES = 128;

/** The keys of an engine's ciphers. */
export class KeyStore {
  readonly #buffers: Buffer[] = [];
  readonly #free: number[] = [];

  /** Stores copies of the MAC keys, 96 bytes, and of the encryption key, 32 bytes. Returns the number of the entry. */
  add(macKeys: Uint8Array, encryptionKey: Uint8Array): number {
    if (this.#free.length === 0) {
      const first = this.#buffers.length * BUFFER_ENTRIES;
      this.#buffers.push(Buffer.alloc(BUFFER_ENTRIES * ENTRY_SIZE));
      for (let i = BUFFER_ENTRIES - 1; i >= 0; i -= 1) this.#free.push(first + i);
    }
    const entry = this.#free.pop()!;
    const buffer = this.#bufferOf(entry);
    buffer.set(macKeys, startOf(entry));
    buffer.set(encryptionKey, startOf(entry) + MAC_KEYS_SIZE);
    return entry;
  }

  /** Copies the MAC keys of an entry to the start of `target`. */
  copyMacKeys(entry: number, target: Uint8Array): void {
    const start = startOf(entry);
    this.#bufferOf(entry).copy(target, 0, start, start + MAC_KEYS_SIZE);
  }

  /** Returns a view of the encryption key of an entry. */
  encryptionKey(entry: number): Uint8Array {
    const start = startOf(entry) + MAC_KEYS_SIZE;
    return this.#bufferOf(entry).subarray(start, start + ENTRY_SIZE - MAC_KEYS_SIZE);
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
