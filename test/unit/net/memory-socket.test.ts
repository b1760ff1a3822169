/** Sockets in memory, which take the same path through Node as those of the network. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { attachReader, directIo } from "../../../src/net/direct-read.ts";
import { memorySocketPair } from "../../../src/net/memory-socket.ts";
import { reset } from "../../../src/net/reset.ts";

/** Collects what a socket receives until its end. */
async function receive(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  attachReader(socket, (buffer, length) => {
    chunks.push(Buffer.from(buffer.subarray(0, length)));
    return true;
  });
  await once(socket.resume(), "end");
  return Buffer.concat(chunks);
}

describe("a pair of sockets in memory", () => {
  it("transfers the data of both directions, and their ends", async () => {
    const [a, b] = memorySocketPair();
    const [forward, backward] = [randomBytes(500_000), randomBytes(70_000)];
    const received = Promise.all([receive(a), receive(b)]);
    a.write(forward.subarray(0, 10));
    a.cork();
    a.write(forward.subarray(10, 20));
    a.write(forward.subarray(20, 30));
    a.uncork();
    a.end(forward.subarray(30));
    b.end(backward);
    const [fromB, fromA] = await received;
    expect(fromB.equals(backward)).toBe(true);
    expect(fromA.equals(forward)).toBe(true);
  });

  it("supports writes past the queue of the stream", async () => {
    const [a, b] = memorySocketPair();
    const received = receive(b);
    await new Promise<void>((resolve) => {
      directIo(a)!.writeNow(Buffer.from("now"), () => resolve());
    });
    a.end();
    expect((await received).toString()).toBe("now");
  });

  it("stops reading while the reader does not want more", async () => {
    const [a, b] = memorySocketPair();
    let reads = 0;
    attachReader(b, () => {
      reads += 1;
      return false;
    });
    b.resume();
    a.write(Buffer.from("one"));
    await new Promise(setImmediate);
    a.write(Buffer.from("two"));
    await new Promise(setImmediate);
    expect(reads).toBe(1);
    b.resume();
    await new Promise(setImmediate);
    expect(reads).toBe(2);
  });

  it("ends the other socket when it is reset", async () => {
    const [a, b] = memorySocketPair();
    const ended = once(b.resume(), "end");
    const closed = once(a, "close");
    reset(a);
    await Promise.all([ended, closed]);
  });
});
