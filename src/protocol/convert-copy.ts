import { READ_BUFFER_SIZE, type Workspace } from "./engine/engine.ts";
import type { Output } from "./engine/output-pool.ts";

/**
 * Seals or opens bytes that are not in an engine's memory: copies them to its read buffer, a part at a time, and the
 * results to `out`.
 *
 * @param convert - processes the first `length` bytes of the read buffer; returns the number of bytes written.
 * @returns the number of bytes written to `out`, which must be large enough.
 */
export function convertCopy(
  { readBuffer, outputs }: Workspace,
  bytes: Uint8Array,
  out: Uint8Array,
  convert: (length: number, output: Output) => number,
): number {
  let written = 0;
  for (let start = 0; start < bytes.length; start += READ_BUFFER_SIZE) {
    const part = bytes.subarray(start, start + READ_BUFFER_SIZE);
    readBuffer.set(part);
    const length = convert(part.length, outputs.reserved);
    out.set(outputs.reserved.first(length), written);
    written += length;
  }
  return written;
}
