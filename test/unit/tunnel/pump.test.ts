/** One direction of a pipe. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { unsentBytes } from "../../../src/net/direct-read.ts";
import { MAX_READ_BYTES, SHORT_READ_BYTES } from "../../../src/net/fairness.ts";
import { reset } from "../../../src/net/reset.ts";
import { createNativeEngine } from "../../../src/protocol/engine/native.ts";
import type { Output } from "../../../src/protocol/engine/output-pool.ts";
import { portableEngine } from "../../../src/protocol/engine/portable.ts";
import { loadEngine } from "../../../src/protocol/engine/select.ts";
import { sealedSize } from "../../../src/protocol/packet.ts";
import { Pump, type Transform } from "../../../src/tunnel/pump.ts";
import { type SocketKind, socketPair } from "../../support/pairs.ts";
import { until } from "../../support/programs.ts";

const { workspace } = await loadEngine();

/** Copies its input; the test can make it swallow data or fail. */
class Copy implements Transform {
  readonly workspace = workspace;
  converted = 0;
  readonly outputs = new Set<Output>();
  swallows = false;
  /** Number of bytes after which the source's data is invalid, or fails at its end. */
  failsAfter = Number.POSITIVE_INFINITY;
  failsAtEnd = false;

  convert(length: number, output: Output): number {
    this.converted += length;
    this.outputs.add(output);
    if (this.swallows) return 0;
    output.bytes.set(this.workspace.readBuffer.subarray(0, length));
    return length;
  }

  failure(ended: boolean): Error | undefined {
    if (ended ? this.failsAtEnd : this.converted >= this.failsAfter) return new Error("invalid");
    return undefined;
  }
}

/** Starts a pump; the test has the other ends of its source and its sink. */
async function startPump(kind: SocketKind, transform = new Copy()) {
  const source = await socketPair("IPv4", kind);
  const sink = await socketPair("IPv4", kind);
  const finished: (Error | undefined)[] = [];
  const start = () => {
    const pump = new Pump(source.socket, sink.socket, transform, {}, (failure) => finished.push(failure));
    return () => pump.stop();
  };
  return { source, sink, transform, finished, start };
}

/** Waits for some iterations of the event loop, in which a pump that has something to do would do it. */
async function idle(): Promise<void> {
  for (let i = 0; i < 20; i += 1) await new Promise(setImmediate);
}

describe.each<SocketKind>(["direct", "ordinary"])("a pump between %s sockets", (kind) => {
  it("transfers everything in order, then half-closes the sink", async () => {
    const { source, sink, finished, start } = await startPump(kind);
    start();
    const data = randomBytes(5_000_000);
    source.peer.socket.end(data);
    expect(await sink.peer.ended).toBe("end");
    expect(sink.peer.received().equals(data)).toBe(true);
    await until(() => finished.length > 0);
    expect(finished).toEqual([undefined]);
    expect(sink.socket.destroyed).toBe(false);
  });

  it("has one converted read in flight at most, until the sink accepts it", async () => {
    const { source, sink, transform, start } = await startPump(kind);
    start();
    sink.peer.socket.pause();
    const data = randomBytes(32 << 20);
    source.peer.socket.end(data);
    await until(() => unsentBytes(sink.socket) > 0);
    let most = 0;
    for (let i = 0; i < 200; i += 1) {
      await new Promise(setImmediate);
      most = Math.max(most, unsentBytes(sink.socket));
    }
    expect(most).toBeLessThanOrEqual(MAX_READ_BYTES);
    expect(transform.converted).toBeLessThan(data.length);
    sink.peer.socket.resume();
    await sink.peer.ended;
    expect(sink.peer.received().equals(data)).toBe(true);
    // Buffers are used again: 32 MiB are hundreds of reads.
    expect(transform.outputs.size).toBeLessThanOrEqual(4);
  });

  it("transfers everything though slow connections hold all outputs", async () => {
    const { source, sink, transform, start } = await startPump(kind);
    const { outputs } = transform.workspace;
    const held: Output[] = [];
    for (const length of [1, MAX_READ_BYTES])
      for (let output = outputs.acquire(length); output !== undefined; output = outputs.acquire(length))
        held.push(output);
    start();
    const data = randomBytes(3_000_000);
    source.peer.socket.end(data);
    await sink.peer.ended;
    for (const output of held) outputs.release(output);
    expect(sink.peer.received().equals(data)).toBe(true);
    expect([...transform.outputs]).toEqual([outputs.reserved]);
  });

  it("transfers first what its source has buffered", async () => {
    const { source, sink, start } = await startPump(kind);
    source.socket.unshift(Buffer.from("put back, "));
    start();
    source.peer.socket.end("then sent");
    await sink.peer.ended;
    expect(String(sink.peer.received())).toBe("put back, then sent");
  });

  it("writes nothing for a read without a result", async () => {
    const { source, sink, transform, finished, start } = await startPump(kind);
    transform.swallows = true;
    start();
    source.peer.socket.write(Buffer.alloc(100));
    await until(() => transform.converted === 100);
    transform.swallows = false;
    source.peer.socket.end("something");
    await sink.peer.ended;
    expect(String(sink.peer.received())).toBe("something");
    expect(finished).toEqual([undefined]);
  });

  it("stops at invalid data, with what was converted before, and reports it once", async () => {
    const { source, sink, transform, finished, start } = await startPump(kind);
    transform.failsAfter = 1;
    start();
    source.peer.socket.write("valid");
    await until(() => finished.length > 0);
    source.peer.socket.end("more");
    await until(() => String(sink.peer.received()) === "valid");
    await idle();
    expect(finished).toEqual([new Error("invalid")]);
    expect(transform.converted).toBe(5);
    expect(sink.socket.writableEnded).toBe(false);
  });

  it("reports an invalid end, and does not half-close the sink", async () => {
    const { source, sink, transform, finished, start } = await startPump(kind);
    transform.failsAtEnd = true;
    start();
    source.peer.socket.end("incomplete");
    await until(() => finished.length > 0);
    expect(finished).toEqual([new Error("invalid")]);
    expect(sink.socket.writableEnded).toBe(false);
    await until(() => String(sink.peer.received()) === "incomplete");
  });

  it("does not take a reset of its source for an end, and leaves it to others to report", async () => {
    const { source, sink, transform, finished, start } = await startPump(kind);
    start();
    source.peer.socket.write("some data");
    await until(() => transform.converted === 9);
    source.peer.socket.resetAndDestroy();
    await new Promise((closed) => source.socket.once("close", closed));
    expect(source.socket.errored).toMatchObject({ code: "ECONNRESET" });
    expect(finished).toEqual([]);
    expect(sink.socket.writableEnded).toBe(false);
  });

  it("does not take a reset that arrives together with data for an end", async () => {
    const { source, sink, transform, finished, start } = await startPump(kind);
    start();
    source.peer.socket.write("some data");
    source.peer.socket.resetAndDestroy();
    await new Promise((closed) => source.socket.once("close", closed));
    expect(transform.converted).toBe(9);
    expect(source.socket.errored).not.toBeNull();
    expect(finished).toEqual([]);
    expect(sink.socket.writableEnded).toBe(false);
  });

  it("half-closes the sink if its source has ended before", async () => {
    const { source, sink, finished, start } = await startPump(kind);
    source.peer.socket.end();
    await once(source.socket.resume(), "end");
    start();
    expect(await sink.peer.ended).toBe("end");
    await until(() => finished.length > 0);
    expect(finished).toEqual([undefined]);
  });

  it("does not half-close the sink if it is stopped while it confirms the end", async () => {
    const { source, sink, finished, start } = await startPump(kind);
    const stop = start();
    source.socket.once("end", stop);
    source.peer.socket.end();
    await once(source.socket, "end");
    await idle();
    expect(finished).toEqual([]);
    expect(sink.socket.writableEnded).toBe(false);
  });

  it("reads nothing more once it is stopped", async () => {
    const { source, sink, transform, finished, start } = await startPump(kind);
    const stop = start();
    source.peer.socket.write("before");
    await until(() => transform.converted === 6);
    stop();
    source.peer.socket.end("after");
    await idle();
    expect(transform.converted).toBe(6);
    expect(finished).toEqual([]);
    expect(sink.socket.writableEnded).toBe(false);
    expect(String(sink.peer.received())).toBe("before");
  });
});

describe("an output whose write is pending", () => {
  type Started = Awaited<ReturnType<typeof startPump>>;
  const { outputs } = workspace;

  /** Returns the number of outputs that are not in use. */
  function countFree(): number {
    const free: Output[] = [];
    for (const length of [1, MAX_READ_BYTES])
      for (let output = outputs.acquire(length); output !== undefined; output = outputs.acquire(length))
        free.push(output);
    for (const output of free) outputs.release(output);
    return free.length;
  }

  it.each<[string, (started: Started) => unknown]>([
    ["the sink's peer resets", ({ sink }) => sink.peer.socket.resetAndDestroy()],
    ["the sink's peer closes", ({ sink }) => sink.peer.socket.destroy()],
    ["the sink is destroyed", ({ sink }) => sink.socket.destroy()],
    ["the sink is reset", ({ sink }) => reset(sink.socket)],
    ["the sink's peer reads it", ({ sink }) => sink.peer.socket.resume()],
  ])("is free again when %s", async (_name, finish) => {
    for (const isBuffered of [false, true]) {
      const before = countFree();
      const started = await startPump("direct");
      const { source, sink } = started;
      // Buffered data makes the pump use the sink's queue too.
      if (isBuffered) source.socket.unshift(Buffer.alloc(3 * MAX_READ_BYTES));
      sink.peer.socket.pause();
      started.start();
      sink.socket.resume();
      source.peer.socket.end(Buffer.alloc(16 << 20));
      await until(() => unsentBytes(sink.socket) > 0);
      expect(countFree()).toBeLessThan(before);
      finish(started);
      await until(() => countFree() === before);
    }
  });

  it("is not used for anything else until the kernel has accepted or abandoned it", async () => {
    const { source, sink, start } = await startPump("direct");
    sink.peer.socket.pause();
    start();
    source.peer.socket.write(Buffer.alloc(16 << 20));
    await until(() => unsentBytes(sink.socket) > 0);
    const before = countFree();
    sink.socket.destroy();
    // The kernel's part of the socket is closed in the same iteration, but after this code.
    expect(countFree()).toBe(before);
    await until(() => countFree() > before);
  });
});

describe("two pumps", () => {
  it("take turns, though one source always has more data", async () => {
    const [bulk, other] = [await startPump("direct"), await startPump("direct")];
    bulk.start();
    other.start();
    const flood = Buffer.alloc(8 << 20);
    bulk.source.peer.socket.write(flood);
    let before = 0;
    let most = 0;
    const count = () => {
      most = Math.max(most, bulk.transform.converted - before);
      before = bulk.transform.converted;
      if (before < flood.length) setImmediate(count);
    };
    setImmediate(count);
    other.source.peer.socket.end("short");
    await other.sink.peer.ended;
    await until(() => bulk.transform.converted === flood.length);
    // Less than the 32 reads that libuv makes in a row: at most one budget, exceeded by at most one read.
    expect(most).toBeLessThanOrEqual(2 * MAX_READ_BYTES);
  });
});

describe.each([createNativeEngine(), portableEngine])("the memory of the $name engine", ({ workspace }) => {
  it("holds a read of any size", () => {
    expect(workspace.readBuffer).toHaveLength(MAX_READ_BYTES);
    expect(workspace.outputs.reserved.bytes.length).toBeGreaterThanOrEqual(sealedSize(MAX_READ_BYTES));
  });

  it("has small outputs for short reads only", () => {
    const sizeFor = (length: number) => {
      const output = workspace.outputs.acquire(length)!;
      workspace.outputs.release(output);
      return output.bytes.length;
    };
    expect(sizeFor(SHORT_READ_BYTES)).toBe(sealedSize(SHORT_READ_BYTES));
    expect(sizeFor(SHORT_READ_BYTES + 1)).toBe(sealedSize(MAX_READ_BYTES));
  });
});
