/** Bytes in a buffer of the kernel. */

export class ByteQueue {
  readonly #chunks: Buffer[] = [];
  length = 0;

  /** @param bytes - must not change afterwards. */
  push(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#chunks.push(bytes);
    this.length += bytes.length;
  }

  /** Removes up to `max` bytes: those that were pushed together, or a part of them. */
  shift(max: number): Buffer {
    const first = this.#chunks[0]!;
    if (first.length <= max) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(max);
    const result = first.subarray(0, max);
    this.length -= result.length;
    return result;
  }

  /** Moves as many bytes as possible to `target` and returns their number. */
  read(target: Uint8Array): number {
    let length = 0;
    while (this.length > 0 && length < target.length) {
      const chunk = this.shift(target.length - length);
      target.set(chunk, length);
      length += chunk.length;
    }
    return length;
  }

  clear(): void {
    this.#chunks.length = 0;
    this.length = 0;
  }
}
