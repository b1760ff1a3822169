/** Sockets that are read into a shared buffer, and what takes their place where Node has no support for that. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, Socket } from "node:net";
import { assert, describe, expect, it } from "vitest";
import {
  attachReader,
  connectDirect,
  DirectSocket,
  rewrapSocket,
  unsentBytes,
} from "../../../src/net/direct-read.ts";
import { MAX_READ_BYTES } from "../../../src/net/fairness.ts";
import { reset } from "../../../src/net/reset.ts";
import { type SocketKind, socketPair } from "../../support/pairs.ts";
import { cleanUp, until } from "../../support/programs.ts";
import { readAll, serve } from "../../support/servers.ts";

/** Reads a socket with a reader that copies, and wants more unless `wantsMore` is changed. */
function collect(socket: Socket) {
  const chunks: Buffer[] = [];
  const collected = {
    wantsMore: true,
    memory: new Set<ArrayBufferLike>(),
    data: () => Buffer.concat(chunks),
    largest: () => Math.max(...chunks.map(({ length }) => length)),
    detach: () => {},
  };
  collected.detach = attachReader(socket, (buffer, length) => {
    chunks.push(Buffer.from(buffer.subarray(0, length)));
    collected.memory.add(buffer.buffer);
    return collected.wantsMore;
  });
  return collected;
}

/** Waits until the event loop has polled all sockets. */
async function polls(): Promise<void> {
  for (let i = 0; i < 3; i += 1) await new Promise(setImmediate);
}

describe.each<SocketKind>(["direct", "ordinary"])("a reader of %s sockets", (kind) => {
  it("gets all data in order, and the socket's end after it", async () => {
    const { socket, peer } = await socketPair("IPv4", kind);
    const collected = collect(socket);
    const data = randomBytes(3_000_000);
    peer.socket.end(data);
    await once(socket.resume(), "end");
    expect(collected.data().equals(data)).toBe(true);
    expect(collected.largest()).toBeLessThanOrEqual(MAX_READ_BYTES);
  });

  it("gets nothing before resume(), and nothing more after it has returned false", async () => {
    const { socket, peer } = await socketPair("IPv4", kind);
    const collected = collect(socket);
    collected.wantsMore = false;
    for (const word of ["one ", "two ", "three"]) {
      const before = collected.data().toString();
      await new Promise<void>((written) => peer.socket.write(word, () => written()));
      await polls();
      expect(collected.data().toString()).toBe(before);
      socket.resume();
      await until(() => collected.data().length > before.length);
    }
    expect(collected.data().toString()).toBe("one two three");
  });

  it("gets the data that was put back first", async () => {
    const { socket, peer } = await socketPair("IPv4", kind);
    peer.socket.write("handshake and ");
    const [chunk] = (await once(socket.resume(), "data")) as [Buffer];
    socket.pause();
    expect(String(chunk)).toBe("handshake and ");
    socket.unshift(Buffer.from("and "));
    const collected = collect(socket);
    peer.socket.end("data");
    await once(socket.resume(), "end");
    expect(collected.data().toString()).toBe("and data");
  });

  it("gets nothing after it is detached", async () => {
    const { socket, peer } = await socketPair("IPv4", kind);
    const collected = collect(socket);
    peer.socket.write("before");
    socket.resume();
    await until(() => collected.data().length > 0);
    collected.detach();
    peer.socket.end("after");
    expect(String(await readAll(socket))).toBe("after");
    expect(String(collected.data())).toBe("before");
  });
});

describe("direct sockets", () => {
  it("share one buffer", async () => {
    const memory = new Set<ArrayBufferLike>();
    for (let i = 0; i < 3; i += 1) {
      const { socket, peer } = await socketPair();
      const collected = collect(socket);
      peer.socket.end(randomBytes(100_000));
      await once(socket.resume(), "end");
      for (const buffer of collected.memory) memory.add(buffer);
    }
    expect(memory.size).toBe(1);
  });

  it("are ordinary streams until a reader is attached", async () => {
    const [one, other] = [await socketPair(), await socketPair()];
    one.peer.socket.end("one");
    other.peer.socket.end("other");
    // Chunks of a stream may be kept, unlike those of a reader.
    const [first, second] = await Promise.all([readAll(one.socket), readAll(other.socket)]);
    expect([String(first), String(second)]).toEqual(["one", "other"]);
  });

  it("stay unread after connecting, so that a reply that arrives with a reset is not lost", async () => {
    const server = await serve((socket) => void socket.write("reply"));
    const socket = connectDirect(server.address.connect);
    cleanUp(() => void socket.destroy());
    const errors: Error[] = [];
    socket.on("error", (error) => errors.push(error));
    await once(socket, "connect");
    await until(() => server.sockets.length === 1);
    await polls();
    server.sockets[0]!.resetAndDestroy();
    await polls();
    expect(errors).toEqual([]);
    const collected = collect(socket);
    socket.resume();
    await until(() => collected.data().length > 0);
    expect(String(collected.data())).toBe("reply");
  });

  it("half-close", async () => {
    const server = await serve((socket) => void socket.end("reply"));
    const socket = connectDirect(server.address.connect);
    cleanUp(() => void socket.destroy());
    await once(socket, "connect");
    expect(String(await readAll(socket))).toBe("reply");
    expect(socket.writable).toBe(true);
    socket.end("more");
    expect(String(await readAll(server.sockets[0]!))).toBe("more");
  });
});

describe("the socket that takes the place of an accepted one", () => {
  async function accept(): Promise<{ accepted: Socket; client: Socket }> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const client = new Socket().connect((server.address() as { port: number }).port, "127.0.0.1");
    const [accepted] = (await once(server, "connection")) as [Socket];
    cleanUp(() => {
      client.destroy();
      accepted.destroy();
      server.close();
    });
    return { accepted, client };
  }

  it("has the connection, also after the accepted one is destroyed", async () => {
    const { accepted, client } = await accept();
    const socket = rewrapSocket(accepted);
    cleanUp(() => void socket.destroy());
    expect(socket).toBeInstanceOf(DirectSocket);
    expect(accepted.destroyed).toBe(true);
    expect(socket.remotePort).toBe(client.localPort);
    client.end("question");
    expect(String(await readAll(socket))).toBe("question");
    socket.end("answer");
    expect(String(await readAll(client))).toBe("answer");
  });

  it("is the accepted one itself if Node does not expose its handle", async () => {
    const { accepted } = await accept();
    const hidden = new Proxy(accepted, {
      get: (target, name) => (name === "_handle" ? undefined : Reflect.get(target, name, target)),
    });
    expect(rewrapSocket(hidden)).toBe(hidden);
    expect(accepted.destroyed).toBe(false);
  });
});

describe("a write past the queue", () => {
  /** Writes blocks until the kernel accepts no more; `written` has the results of the callbacks. */
  async function fill() {
    const { socket, peer } = await socketPair();
    assert(socket instanceof DirectSocket);
    peer.socket.pause();
    const block = randomBytes(1 << 20);
    const written: (Error | null | undefined)[] = [];
    let count = 0;
    while (socket.canWriteNow) {
      socket.writeNow(block, (error) => written.push(error));
      count += 1;
    }
    return { socket, peer, written, expected: Buffer.concat(Array.from({ length: count }, () => block)) };
  }

  it("is accepted before it returns if the kernel has space", async () => {
    const { socket, peer } = await socketPair();
    assert(socket instanceof DirectSocket);
    let isWritten = false;
    socket.writeNow(Buffer.from("hello"), () => {
      isWritten = true;
    });
    expect([isWritten, socket.pendingBytes, socket.canWriteNow]).toEqual([true, 0, true]);
    await until(() => peer.received().length > 0);
    expect(String(peer.received())).toBe("hello");
  });

  it("is pending until the peer reads, and an end waits for it", async () => {
    const { socket, peer, written, expected } = await fill();
    expect(unsentBytes(socket)).toBe(1 << 20);
    expect(socket.writableLength).toBe(0);
    const before = written.length;
    let isFinished = false;
    socket.end(() => {
      isFinished = true;
    });
    await polls();
    expect([isFinished, written.length]).toEqual([false, before]);
    peer.socket.resume();
    expect(await peer.ended).toBe("end");
    expect(peer.received().equals(expected)).toBe(true);
    expect(written).toEqual(Array.from({ length: before + 1 }, () => undefined));
    await until(() => isFinished);
    expect(unsentBytes(socket)).toBe(0);
  });

  it("keeps its order with writes to the queue", async () => {
    const { socket, peer, expected } = await fill();
    socket.end("the end");
    peer.socket.resume();
    await peer.ended;
    expect(peer.received().equals(Buffer.concat([expected, Buffer.from("the end")]))).toBe(true);
  });

  it.each([false, true])("can be reset while it is pending (ended: %s)", async (isEnded) => {
    const { socket, peer, expected } = await fill();
    if (isEnded) socket.end();
    await polls();
    const closed = new Promise((resolve) => socket.once("close", resolve));
    reset(socket);
    await closed;
    peer.socket.resume();
    await peer.ended;
    expect(peer.received().length).toBeLessThan(expected.length);
  });

  it("that is pending fails if the peer resets, after all received data has been read", async () => {
    const { socket, peer, written } = await fill();
    const before = written.length;
    await new Promise<void>((sent) => peer.socket.write("last words", () => sent()));
    peer.socket.resetAndDestroy();
    await until(() => written.length > before);
    expect(written.at(-1)).toMatchObject({ syscall: "write" });
    expect(socket.writeError).toMatchObject({ syscall: "write" });
    expect(unsentBytes(socket)).toBeGreaterThan(0);
    const closed = new Promise((resolve) => socket.once("close", resolve));
    const collected = collect(socket);
    socket.resume();
    await closed;
    expect(String(collected.data())).toBe("last words");
    expect(socket.errored).toMatchObject({ syscall: "write" });
  });

  it("to a destroyed socket fails", async () => {
    const { socket } = await socketPair();
    assert(socket instanceof DirectSocket);
    socket.destroy();
    let failure: Error | null | undefined;
    socket.writeNow(Buffer.from("too late"), (error) => {
      failure = error;
    });
    expect(failure).toMatchObject({ code: "ERR_SOCKET_CLOSED" });
  });
});

describe("a failed write", () => {
  /** Returns a socket whose next write fails, though there is data to read. */
  async function withReset() {
    const { socket, peer } = await socketPair();
    peer.socket.write("last words", () => peer.socket.resetAndDestroy());
    await once(peer.socket, "close");
    const events: string[] = [];
    for (const name of ["writeError", "end", "error", "close"]) socket.on(name, () => events.push(name));
    assert(socket instanceof DirectSocket);
    return { socket, events };
  }

  it("does not discard received data: its error is deferred to the end", async () => {
    const { socket, events } = await withReset();
    socket.write("too late");
    await until(() => events.includes("writeError"));
    expect(socket.writeError).toMatchObject({ code: expect.stringMatching(/^(ECONNRESET|EPIPE)$/) });
    expect(socket.destroyed).toBe(false);
    const collected = collect(socket);
    socket.resume();
    await until(() => events.includes("close"));
    expect(String(collected.data())).toBe("last words");
    expect(events).toEqual(["writeError", "end", "error", "close"]);
  });

  it("is completed, as are those queued behind it, if the socket is destroyed before its end", async () => {
    const { socket } = await withReset();
    const errors: unknown[] = [];
    for (const text of ["too late", "later still"]) socket.write(text, (error) => errors.push(error));
    await until(() => socket.writeError !== undefined);
    expect(errors).toEqual([]);
    socket.destroy();
    await until(() => errors.length === 2);
    expect(errors).toEqual([expect.any(Error), expect.any(Error)]);
  });

  it("fails at once if nobody reads any more", async () => {
    const { socket, events } = await withReset();
    socket.deferWriteErrors = false;
    socket.write("too late");
    await until(() => events.includes("close"));
    expect(events).toEqual(["error", "close"]);
    expect(socket.writeError).toBeUndefined();
  });
});
