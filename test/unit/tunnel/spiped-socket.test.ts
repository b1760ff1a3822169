/** Streams between the two ends of a connection in this process. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect as connectNet, createServer as createNetServer } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { inspect } from "node:util";
import { describe, expect, it, vi } from "vitest";
import { connect, createServer, loadKey, Secret, type SpipedSocket } from "../../../src/index.ts";
import { listen, open } from "../../support/library.ts";
import { cleanUp, keyFile, until } from "../../support/programs.ts";
import { digestOf } from "../../support/servers.ts";

describe("a connection", () => {
  const key = Secret.fromKeyFile(Buffer.from("a key for tests"));

  /** Returns a connected pair, client first. */
  async function pair(): Promise<[SpipedSocket, SpipedSocket]> {
    const server = createServer({ key });
    const accepted = once(server, "connection") as Promise<[SpipedSocket]>;
    const client = await open({ host: "127.0.0.1", port: await listen(server), key });
    return [client, (await accepted)[0]];
  }

  it("carries single bytes, strings, empty writes and one huge write, in order", async () => {
    const [client, server] = await pair();
    const huge = randomBytes(5_000_001);
    const hash = createHash("sha256");
    for (const piece of [Buffer.from("a"), Buffer.alloc(0), "bc", huge, new Uint8Array([1, 2, 3])]) {
      client.write(piece);
      hash.update(piece);
    }
    client.end();
    expect((await digestOf(server)).sha256).toBe(hash.digest("hex"));
  });

  it("stops its writer while the peer does not read, and resumes when it does", async () => {
    const [client, server] = await pair();
    const chunk = randomBytes(65_536);
    let written = 0;
    while (written < 64 << 20) {
      if (client.write(chunk)) written += chunk.length;
      else {
        written += chunk.length;
        // Without a reader there is no 'drain'.
        const drained = await Promise.race([
          once(client, "drain").then(() => true),
          new Promise((done) => setTimeout(done, 300, false)),
        ]);
        if (!drained) break;
      }
    }
    expect(written).toBeLessThan(32 << 20);
    expect(client.writableLength).toBeLessThanOrEqual(65_536);
    const all = digestOf(server);
    client.end();
    expect((await all).length).toBe(written);
  });

  it("reports a reset by the peer as one error", async () => {
    const [client, server] = await pair();
    const errors: Error[] = [];
    client.on("error", (error) => errors.push(error));
    client.resume();
    const closed = new Promise((done) => client.once("close", done));
    server.destroy(new Error("on purpose"));
    await closed;
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatchObject({ code: "ECONNRESET" });
  });

  it("reports a stream that is truncated inside a packet", async () => {
    const server = createServer({ key });
    const received: Buffer[] = [];
    const port = await listen(server);
    server.on("connection", (socket) => socket.end(Buffer.alloc(3000)));
    // A proxy without the key that forwards the handshake and 1,500 bytes of packets, then closes cleanly.
    const middle = createNetServer((client) => {
      const upstream = connectNet(port, "127.0.0.1");
      client.pipe(upstream);
      let left = 32 + 288 + 1500;
      upstream.on("data", (chunk) => {
        client.write(chunk.subarray(0, left));
        left -= Math.min(left, chunk.length);
        if (left === 0) client.end();
      });
      for (const socket of [client, upstream]) socket.on("error", () => {});
    }).listen(0, "127.0.0.1");
    await once(middle, "listening");
    cleanUp(() => void middle.close());
    const socket = await open({ host: "127.0.0.1", port: (middle.address() as { port: number }).port, key });
    socket.on("data", (chunk) => received.push(chunk));
    const [error] = await once(socket, "error");
    expect(error).toMatchObject({ name: "PacketError", code: "ERR_SPIPED_TRUNCATED" });
    expect(Buffer.concat(received).length).toBe(1024);
  });

  it("can be destroyed at any moment without an error", async () => {
    for (const disturb of [
      (socket: SpipedSocket) => socket.destroy(),
      (socket: SpipedSocket) => socket.end().destroy(),
      (socket: SpipedSocket) => {
        socket.write(randomBytes(1 << 20));
        socket.destroy();
      },
      (socket: SpipedSocket) => {
        socket.resume();
        setImmediate(() => socket.destroy());
      },
    ]) {
      const [client, server] = await pair();
      server.resume();
      const closed = once(client, "close");
      disturb(client);
      await closed;
      expect(client.errored).toBe(null);
    }
  });

  it.each([
    [1, "the end after the data", "end"],
    [2, "a reset if data is lost", "ECONNRESET"],
  ])("shows the peer of a stream that is destroyed after %i writes %s", async (writes, _, outcome) => {
    const [client, server] = await pair();
    const seen = new Promise((done) => {
      server.once("end", () => done("end"));
      server.once("error", (error: NodeJS.ErrnoException) => done(error.code));
    });
    // The second one waits for the first.
    for (let count = 0; count < writes; count += 1) client.write("data");
    client.destroy();
    server.resume();
    expect(await seen).toBe(outcome);
    expect(client.errored).toBe(null);
  });

  it("passes no more data to a listener that has destroyed it", async () => {
    const [client, server] = await pair();
    const chunks: number[] = [];
    client.pause();
    client.read(0);
    for (const size of [1000, 2000]) {
      server.write(Buffer.alloc(size));
      await until(() => client.readableLength >= size);
      client.read(0);
    }
    const closed = once(client, "close");
    client.on("data", (chunk: Buffer) => {
      chunks.push(chunk.length);
      client.destroy();
    });
    client.resume();
    await closed;
    expect(chunks).toEqual([1000]);
  });

  it.each([undefined, new Error("given up")])(
    "calls the callbacks of all writes before 'close' when it is destroyed with %s",
    async (error) => {
      const [client] = await pair();
      const events: string[] = [];
      client.on("error", () => events.push("error"));
      // More than the kernel buffers.
      for (let count = 0; count < 3; count += 1)
        client.write(Buffer.alloc(16 << 20), () => events.push("callback"));
      // Until the kernel accepts no more.
      for (let turn = 0; turn < 2000; turn += 1) await new Promise((next) => setImmediate(next));
      const closed = new Promise<void>((done) => {
        client.once("close", () => {
          events.push("close");
          done();
        });
      });
      client.destroy(error);
      await closed;
      expect(client.errored).toBe(error ?? null);
      expect(events.filter((event) => event !== "error")).toEqual([
        "callback",
        "callback",
        "callback",
        "close",
      ]);
    },
  );

  it("shows no key when it is inspected or serialized", async () => {
    const [client] = await pair();
    const secret = createHash("sha256").update("a key for tests").digest();
    for (const text of [
      inspect(client, { depth: 9, showHidden: true }),
      JSON.stringify(key),
      inspect(key, { showHidden: true }),
    ]) {
      for (const form of [
        secret.toString("hex"),
        secret.toString("base64"),
        [...secret.subarray(0, 8)].join(","),
        secret
          .toString("hex")
          .replaceAll(/(..)(?!$)/g, "$1 ")
          .slice(0, 23),
      ])
        expect(text).not.toContain(form);
    }
  });
});

describe("a stream that is destroyed", () => {
  it("while its end is being sent is closed, and so is its server", async () => {
    const key = Secret.fromKeyFile(Buffer.from("x"));
    const server = createServer({ key }, (socket) => {
      socket.once("data", () => {
        socket.end();
        socket.destroy(new Error("given up"));
      });
    });
    const port = await listen(server);
    for (let i = 0; i < 3; i += 1) {
      const client = await open({ host: "127.0.0.1", port, key });
      const closed = new Promise((done) => client.once("close", done));
      let failed = false;
      client.on("error", () => {
        failed = true;
      });
      client.resume().write("hi");
      await closed;
      expect(failed).toBe(true);
    }
    await server.close();
  });
});

describe("a stream that the peer resets after data", () => {
  it.each(["is read on", "is not read for a minute"])(
    "fails the pipeline whose data was lost, when it %s",
    async (when) => {
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
      cleanUp(() => void vi.useRealTimers());
      const turnsUntil = async (condition: () => boolean) => {
        for (let turns = 0; !condition(); turns += 1) {
          if (turns === 100_000) throw new Error("never became true");
          await new Promise((next) => setImmediate(next));
        }
      };
      const key = await loadKey(keyFile());
      const accepted: SpipedSocket[] = [];
      const server = createServer({ key }, (socket) => {
        accepted.push(socket);
        // Has received data that is not read.
        socket.pause().read(0);
      });
      await server.listen({ port: 0, host: "127.0.0.1" });
      const { port } = server.address() as { port: number };
      const client = await connect({ host: "127.0.0.1", port, key });
      client.on("error", () => {});
      client.write(Buffer.alloc(100_000));
      await turnsUntil(() => (accepted[0]?.readableLength ?? 0) > 0);
      const [socket] = accepted as [SpipedSocket];
      let outcome = "";
      let written = 0;
      const source = Readable.from(
        (function* () {
          for (; written < 200; written += 1) yield Buffer.alloc(10_000);
        })(),
      );
      pipeline(source, socket).then(
        () => {
          outcome = "finished";
        },
        () => {
          outcome = "failed";
        },
      );
      client.destroy(new Error("gone"));
      await turnsUntil(() => written === 200);
      for (let i = 0; i < 20; i += 1) await new Promise((next) => setImmediate(next));
      expect(outcome).toBe("");
      if (when === "is read on") socket.resume();
      else vi.advanceTimersByTime(60_000);
      await turnsUntil(() => outcome !== "");
      expect(outcome).toBe("failed");
      await server.close();
    },
  );
});
