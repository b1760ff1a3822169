/** Memory for the results of reads. */
import { describe, expect, it } from "vitest";
import { READ_BUFFER_SIZE } from "../../../../src/protocol/engine/engine.ts";
import { createNativeEngine } from "../../../../src/protocol/engine/native.ts";
import { type Output, OutputPool } from "../../../../src/protocol/engine/output-pool.ts";
import { sealedSize } from "../../../../src/protocol/packet.ts";

describe.each([
  ["of the native engine", () => createNativeEngine().workspace.outputs],
  ["of ordinary memory", () => new OutputPool((_index, size) => Buffer.alloc(size))],
])("outputs %s", (_name, create) => {
  it.each([1, 16 * 1024, 16 * 1024 + 1, READ_BUFFER_SIZE])("hold %i bytes, sealed", (length) => {
    const output = create().acquire(length)!;
    expect(output.bytes.length).toBeGreaterThanOrEqual(sealedSize(length));
    expect(output.first(sealedSize(length))).toHaveLength(sealedSize(length));
  });

  it.each([1, READ_BUFFER_SIZE])("run out (%i bytes), and are available again once released", (length) => {
    const pool = create();
    const acquired: Output[] = [];
    for (let output = pool.acquire(length); output !== undefined; output = pool.acquire(length)) {
      acquired.push(output);
      expect(acquired.length).toBeLessThan(100);
    }
    expect(acquired).not.toContain(pool.reserved);
    pool.release(acquired[3]!);
    expect(pool.acquire(length)).toBe(acquired[3]);
    expect(pool.acquire(length)).toBeUndefined();
  });

  it("do not overlap", () => {
    const pool = create();
    const all = [pool.reserved];
    for (const length of [1, READ_BUFFER_SIZE])
      for (let output = pool.acquire(length); output !== undefined; output = pool.acquire(length))
        all.push(output);
    for (const [index, { bytes }] of all.entries()) bytes.fill(index);
    for (const [index, { bytes }] of all.entries())
      expect(bytes.equals(Buffer.alloc(bytes.length, index))).toBe(true);
  });

  it.each([0, 1, 1060, 1061, 2120, 4240, 5300])("return their first %i bytes", (length) => {
    const { reserved } = create();
    reserved.bytes.fill("x");
    expect(reserved.first(length).toString()).toBe("x".repeat(length));
  });
});
