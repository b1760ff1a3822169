/** The pool of buffers for data to be written. */
import { describe, expect, it } from "vitest";
import { SHORT_READ_BYTES } from "../../../src/net/fairness.ts";
import { sealedSize } from "../../../src/protocol/packet.ts";
import { acquireBuffer, POOLED_BUFFER_BYTES, releaseBuffer } from "../../../src/tunnel/buffer-pool.ts";

describe.each([
  ["small", 1, sealedSize(SHORT_READ_BYTES)],
  ["large", sealedSize(SHORT_READ_BYTES) + 1, POOLED_BUFFER_BYTES],
])("a %s buffer", (_name, shortest, longest) => {
  it("is large enough, and no larger than its kind", () => {
    for (const size of [shortest, longest]) {
      const buffer = acquireBuffer(size);
      expect(buffer).toHaveLength(longest);
      releaseBuffer(buffer);
    }
  });

  it("is not shared by two writes, and used again after its release", () => {
    const [first, second] = [acquireBuffer(longest), acquireBuffer(longest)];
    expect(first.buffer).not.toBe(second.buffer);
    releaseBuffer(second);
    expect(acquireBuffer(shortest)).toBe(second);
    for (const buffer of [first, second]) releaseBuffer(buffer);
  });

  it("is kept only if fewer than 32 are free", () => {
    const acquired = Array.from({ length: 40 }, () => acquireBuffer(longest));
    expect(new Set(acquired).size).toBe(40);
    for (const buffer of acquired) releaseBuffer(buffer);
    const again = Array.from({ length: 40 }, () => acquireBuffer(longest));
    expect(again.filter((buffer) => acquired.includes(buffer))).toHaveLength(32);
    for (const buffer of again) releaseBuffer(buffer);
  });
});
