/** Protocol violations by a peer: the connection closes, the daemon keeps running, and the peer learns nothing. */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { withoutFailureLines } from "../../support/log-lines.ts";
import {
  commandOf,
  connectTo,
  freeAddress,
  keyFile,
  type Running,
  run,
  start,
  startSpiped,
  type TestAddress,
  until,
} from "../../support/programs.ts";
import { P, type RawSession, rawHandshake, rawOpen, rawPacket, readBytes } from "../../support/raw-peer.ts";
import { serve, type TestServer } from "../../support/servers.ts";

let key: string;
let source: TestAddress;
let daemon: Running;
let target: TestServer;
let received: Buffer[];
let ends: string[];

async function startTarget() {
  received = [];
  ends = [];
  target = await serve((socket) => {
    socket.on("data", (chunk) => {
      received.push(chunk);
      socket.write(chunk);
    });
    socket.on("end", () => {
      ends.push("end");
      socket.end();
    });
    socket.on("close", () => ends.push(socket.errored ? "reset" : "close"));
  });
}

async function startDaemon(...options: string[]) {
  key = keyFile();
  source = await freeAddress();
  daemon = await startSpiped("ours", "-d", source, target.address, key, ...options);
}

beforeEach(async () => {
  await startTarget();
  await startDaemon();
});

afterEach(async () => {
  // After each case an honest client is served, and only failed connections are logged.
  const { status, stdout } = await run(
    [...commandOf("ours", "spipe"), "-t", source.text, "-k", key],
    "honest",
  );
  expect({ status, stdout: stdout.toString() }).toEqual({ status: 0, stdout: "honest" });
  expect(withoutFailureLines(daemon.stderr())).toBe("");
});

/** Resolves with everything the peer sent when it has closed or reset the connection. */
async function closed(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  await until(() => socket.destroyed || socket.readableEnded);
  return Buffer.concat(chunks);
}

async function session(): Promise<{ socket: Socket; keys: RawSession }> {
  const socket = await connectTo(source);
  const keys = await rawHandshake(socket, key);
  return { socket, keys: keys! };
}

describe("an unauthenticated client", () => {
  it.each([
    ["garbage", randomBytes(320)],
    ["zeros", Buffer.alloc(320)],
    ["far too much", randomBytes(100_000)],
    ["HTTP", Buffer.from(`GET / HTTP/1.1\r\nHost: x\r\n\r\n${" ".repeat(400)}`)],
  ])("that sends %s gets at most 32 bytes, is closed, and never reaches the target", async (_name, bytes) => {
    const socket = await connectTo(source);
    socket.write(bytes);
    expect((await closed(socket)).length).toBeLessThanOrEqual(32);
    expect(target.sockets).toHaveLength(0);
  });

  it("that disconnects at any point of the handshake never reaches the target", async () => {
    const bytes = randomBytes(320);
    for (let length = 0; length < 320; length += 1) {
      const socket = await connectTo(source);
      socket.end(bytes.subarray(0, length));
      expect((await closed(socket)).length).toBeLessThanOrEqual(32);
    }
    expect(target.sockets).toHaveLength(0);
  });

  it("that is idle is disconnected after -o seconds", async () => {
    await startDaemon("-o", "0.2");
    const socket = await connectTo(source);
    expect(await closed(socket)).toHaveLength(32);
    expect(target.sockets).toHaveLength(0);
  });

  it("is rejected if any bit of its message is flipped", async () => {
    for (const bit of [0, 1, 7, 1000, 2047, 2048, 2055, 2200, 2303]) {
      const socket = await connectTo(source);
      const tamper = (message: Buffer) => {
        message[bit >> 3]! ^= 1 << (bit & 7);
        return message;
      };
      expect(await rawHandshake(socket, key, { tamper })).toBeUndefined();
    }
    expect(target.sockets).toHaveLength(0);
  });

  it("can't have a client's recorded stream delivered again", async () => {
    const { socket, keys } = await session();
    socket.write(rawPacket(keys.up, 0, "once"));
    expect(rawOpen(keys.down, 0, await readBytes(socket, 1060)).toString()).toBe("once");
    const again = await connectTo(source);
    again.write(Buffer.concat([randomBytes(32), randomBytes(288), rawPacket(keys.up, 0, "once")]));
    await closed(again);
    expect(Buffer.concat(received).toString()).toBe("once");
  });
});

describe("a client with the key", () => {
  it("exchanges packets that independent code encrypts and decrypts", async () => {
    const { socket, keys } = await session();
    socket.write(rawPacket(keys.up, 0, "hello"));
    expect(rawOpen(keys.down, 0, await readBytes(socket, 1060)).toString()).toBe("hello");
  });

  it.each([
    ["p", P],
    ["p+1", P + 1n],
    ["2^2048-1", 2n ** 2048n - 1n],
  ])("is rejected if it sends y = %s", async (_name, y) => {
    const socket = await connectTo(source);
    expect(await rawHandshake(socket, key, { y })).toBeUndefined();
    expect(target.sockets).toHaveLength(0);
  });

  it.each([
    ["0", 0n],
    ["1", 1n],
  ])("is accepted if it sends y = %s, as by Tarsnap's spiped", async (_name, y) => {
    const socket = await connectTo(source);
    const keys = await rawHandshake(socket, key, { y });
    socket.write(rawPacket(keys!.up, 0, "degenerate"));
    expect(rawOpen(keys!.down, 0, await readBytes(socket, 1060)).toString()).toBe("degenerate");
  });

  it("is accepted if it sends y = p-1, as by Tarsnap's spiped", async () => {
    const socket = await connectTo(source);
    expect(await rawHandshake(socket, key, { y: P - 1n })).toBeDefined();
  });

  it("is rejected if it sends y = 1 when forward secrecy is required, but not if it sends 0", async () => {
    await startDaemon("-g");
    expect(await rawHandshake(await connectTo(source), key, { y: 1n })).toBeUndefined();
    expect(await rawHandshake(await connectTo(source), key, { y: 0n })).toBeDefined();
  });

  it.each<[string, (keys: RawSession) => Buffer[], string]>([
    ["a forged packet", ({ up }) => [rawPacket(up, 0, "good"), randomBytes(1060)], "good"],
    ["a replayed packet", ({ up }) => [rawPacket(up, 0, "good"), rawPacket(up, 0, "good")], "good"],
    ["packets out of order", ({ up }) => [rawPacket(up, 1, "late")], ""],
    ["the server's own packets", ({ down }) => [rawPacket(down, 0, "mirror")], ""],
    ["a packet of length 0", ({ up }) => [rawPacket(up, 0, "good"), rawPacket(up, 1, "x", 0)], "good"],
    ["a packet of length 1025", ({ up }) => [rawPacket(up, 0, "good"), rawPacket(up, 1, "x", 1025)], "good"],
    ["a packet of length 2^32-1", ({ up }) => [rawPacket(up, 0, "x", 2 ** 32 - 1)], ""],
  ])("that sends %s is closed, and nothing after that is delivered", async (_name, packets, delivered) => {
    const { socket, keys } = await session();
    for (const packet of packets(keys)) socket.write(packet);
    socket.write(rawPacket(keys.up, 2, "never"));
    await closed(socket);
    await until(() => target.sockets[0]!.closed);
    expect(delivered).toContain(Buffer.concat(received).toString());
    expect(ends).not.toContain("end");
  });

  it.each([1, 1024, 1059, 1061, 2119])(
    "that ends inside a packet, at %i bytes, makes the daemon reset the target connection instead of ending it",
    async (length) => {
      const { socket, keys } = await session();
      const stream = Buffer.concat([rawPacket(keys.up, 0, "first "), rawPacket(keys.up, 1, "second")]);
      socket.end(stream.subarray(0, length));
      await closed(socket);
      await until(() => target.sockets[0]!.closed);
      expect(ends).toEqual(["reset"]);
      expect("first ").toContain(Buffer.concat(received).toString());
    },
  );

  it("that ends between packets makes the daemon end the target connection cleanly", async () => {
    const { socket, keys } = await session();
    socket.end(rawPacket(keys.up, 0, "whole"));
    expect(rawOpen(keys.down, 0, await readBytes(socket, 1060)).toString()).toBe("whole");
    await closed(socket);
    expect(ends[0]).toBe("end");
  });
});

describe("a hostile server", () => {
  it.each([
    [
      "garbage",
      (socket: Socket) => socket.write(randomBytes(2000)),
      "the peer's MAC is invalid: its key differs",
    ],
    [
      "the client's own bytes",
      (socket: Socket) => socket.pipe(socket),
      "the peer's MAC is invalid: its key differs",
    ],
    [
      "nothing but an end",
      (socket: Socket) => socket.end(),
      "the peer closed the connection before sending its nonce: check that it is a spiped -d and allows this address",
    ],
    [
      "half a handshake",
      (socket: Socket) => socket.end(randomBytes(100)),
      "the peer closed the connection after our proof: probably its key differs, or it cannot connect to its target",
    ],
  ])("that sends %s makes spipe fail and report the cause", async (_name, behave, cause) => {
    const hostile = await serve(behave);
    const { status, stderr, stdout } = await run(
      [...commandOf("ours", "spipe"), "-t", hostile.address.text, "-k", key],
      "secret",
    );
    expect(status).toBe(1);
    expect(stderr).toBe(`spipe: Handshake failed\nspipe: ${cause}\n`);
    expect(stdout).toHaveLength(0);
  });

  it("that truncates the stream inside a packet makes spipe report it and exit with 1", async () => {
    const cutting = await serve((client) => {
      void connectTo(source).then((server) => {
        client.pipe(server);
        let left = 320 + 1060 + 500;
        server.on("data", (chunk) => {
          client.write(chunk.subarray(0, left));
          left -= chunk.length;
          if (left <= 0) client.end();
        });
      });
    });
    const spipe = start([...commandOf("ours", "spipe"), "-t", cutting.address.text, "-k", key]);
    spipe.child.stdin!.write(Buffer.alloc(3000, "x"));
    expect(await spipe.ended).toEqual({ status: 1, signal: null });
    expect(spipe.stderr()).toBe(
      "spipe: stream truncated inside a packet: data is missing\nspipe: Connection error\n",
    );
    expect(spipe.stdout().length).toBeLessThanOrEqual(1024);
  });
});
