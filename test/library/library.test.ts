/** The library against Tarsnap's programs, and against itself for failures that those can't produce on demand. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, get } from "node:http";
import { connect as connectNet, createServer as createNetServer } from "node:net";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { inspect } from "node:util";
import { describe, expect, it, vi } from "vitest";
import {
  type ConnectOptions,
  connect,
  createServer,
  fingerprint,
  httpAgent,
  loadKey,
  loadKeys,
  Secret,
  type SpipedServer,
  type SpipedSocket,
} from "../../src/index.ts";
import {
  cleanUp,
  commandOf,
  freeAddress,
  freePort,
  keyFile,
  run,
  startSpiped,
  temporaryDirectory,
  until,
} from "../support/programs.ts";
import { describeIfInstalled } from "../support/requirements.ts";
import {
  digestOf,
  exchange,
  RandomSource,
  readAll,
  send,
  serve,
  startDigester,
  startEcho,
} from "../support/servers.ts";

/** Connects; the socket is destroyed at the end of the test. */
async function open(options: ConnectOptions): Promise<SpipedSocket> {
  const socket = await connect(options);
  cleanUp(() => void socket.destroy());
  return socket;
}

/** Starts a library server on a free port. */
async function listen(server: SpipedServer): Promise<number> {
  const sockets: SpipedSocket[] = [];
  server.on("connection", (socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
  });
  await server.listen({ port: 0, host: "127.0.0.1" });
  cleanUp(async () => {
    for (const socket of sockets) socket.destroy();
    await server.close();
  });
  return (server.address() as { port: number }).port;
}

describeIfInstalled("spiped")("connect() to Tarsnap's spiped -d", () => {
  it.each(["IPv4", "IPv6", "UNIX"] as const)("moves 16 MiB each way over %s", async (family) => {
    const echo = await startEcho(family);
    const wire = await freeAddress(family);
    const key = keyFile();
    await startSpiped("c", "-d", wire, echo.address, key);
    const socket = await open({ ...wire.connect, key: await loadKey(key) });
    const source = new RandomSource(16 << 20);
    const [received] = await Promise.all([digestOf(socket), send(socket, source)]);
    expect(received).toEqual({ sha256: source.digest(), length: 16 << 20 });
  });

  it("receives after it has half-closed", async () => {
    const digester = await startDigester();
    const wire = await freeAddress();
    const key = keyFile();
    await startSpiped("c", "-d", wire, digester.address, key);
    const socket = await open({ ...wire.connect, key: await loadKey(key) });
    socket.end("the question");
    expect(String(await readAll(socket))).toBe(createHash("sha256").update("the question").digest("hex"));
  });

  it("sends after the peer has half-closed", async () => {
    let received: Promise<Buffer> | undefined;
    const target = await serve((socket) => {
      socket.end("all I have to say");
      received = readAll(socket);
    });
    const wire = await freeAddress();
    const key = keyFile();
    await startSpiped("c", "-d", wire, target.address, key);
    const socket = await open({ ...wire.connect, key: await loadKey(key) });
    expect(String(await readAll(socket))).toBe("all I have to say");
    expect(socket.writable).toBe(true);
    socket.write("but ");
    socket.end("I have more");
    await once(socket, "close");
    expect(String(await received)).toBe("but I have more");
  });

  it("closes when the peer ends if allowHalfOpen is false", async () => {
    const target = await serve((socket) => socket.end("bye"));
    const wire = await freeAddress();
    const key = keyFile();
    await startSpiped("c", "-d", wire, target.address, key);
    const socket = await open({ ...wire.connect, key: await loadKey(key), allowHalfOpen: false });
    socket.resume();
    await once(socket, "close");
    expect(socket.errored).toBe(null);
  });

  it("rejects with ERR_SPIPED_HANDSHAKE_EOF if the server has another key", async () => {
    const wire = await freeAddress();
    await startSpiped("c", "-d", wire, await freeAddress(), keyFile());
    await expect(connect({ ...wire.connect, key: await loadKey(keyFile()) })).rejects.toMatchObject({
      name: "HandshakeError",
      code: "ERR_SPIPED_HANDSHAKE_EOF",
    });
  });

  it("resolves host names", async () => {
    const echo = await startEcho();
    const wire = await freeAddress();
    const key = keyFile();
    await startSpiped("c", "-d", wire, echo.address, key);
    const { port } = wire.connect as { port: number };
    const socket = await open({ host: "localhost", port, key: await loadKey(key) });
    socket.end("found");
    expect(String(await readAll(socket))).toBe("found");
  });
});

describeIfInstalled("spiped", "spipe")("createServer() with Tarsnap's clients", () => {
  it("serves Tarsnap's spipe", async () => {
    const key = keyFile();
    const server = createServer({ key: await loadKey(key) }, (socket) => socket.pipe(socket));
    const port = await listen(server);
    const big = randomBytes(1 << 20);
    const { status, stdout } = await run(
      [...commandOf("c", "spipe"), "-t", `[127.0.0.1]:${port}`, "-k", key],
      big,
    );
    expect(status).toBe(0);
    expect(stdout.equals(big)).toBe(true);
  });

  it("serves Tarsnap's spiped -e over a UNIX socket", async () => {
    const key = keyFile();
    const wire = await freeAddress("UNIX");
    const server = createServer({ key: await loadKey(key) }, (socket) => socket.pipe(socket));
    await server.listen(wire.connect as { path: string });
    cleanUp(() => server.close());
    const plain = await freeAddress();
    await startSpiped("c", "-e", plain, wire, key);
    expect((await exchange(plain, "hello")).toString()).toBe("hello");
  });

  it("reports which key of a directory a client has, and rejects a key that was removed", async () => {
    const directory = temporaryDirectory();
    for (const name of ["alice.key", "alice.2027.key", "bob.key"])
      writeFileSync(join(directory, name), randomBytes(32), { mode: 0o600 });
    writeFileSync(join(directory, "bob.toml"), "max-connections = 1\n");
    const keys = await loadKeys(directory);
    expect(keys.map(({ name }) => name)).toEqual(["alice", "alice", "bob"]);
    const server = createServer({ keys }, (socket) =>
      socket.end(`hello ${socket.keyName} ${socket.keyFingerprint}`),
    );
    const port = await listen(server);
    const ask = (file: string) =>
      run([...commandOf("c", "spipe"), "-t", `[127.0.0.1]:${port}`, "-k", join(directory, file)]);
    for (const file of ["bob.key", "alice.key", "alice.2027.key"]) {
      const print = fingerprint(await loadKey(join(directory, file)));
      expect(String((await ask(file)).stdout)).toBe(`hello ${file.split(".")[0]} ${print}`);
    }
    const old = fingerprint(await loadKey(join(directory, "alice.key")));
    keys.splice(
      keys.findIndex(({ secret }) => fingerprint(secret) === old),
      1,
    );
    expect((await ask("alice.key")).status).toBe(1);
    expect((await ask("alice.2027.key")).status).toBe(0);
    expect(() => createServer({})).toThrow(TypeError);
  });

  it("rejects an expired key, and closes the connections that it opened before it expired", async () => {
    const secret = Secret.fromKeyFile(randomBytes(32));
    const key = { name: "alice", secret, expires: new Date(Date.now() + 1000) };
    const errors: unknown[] = [];
    const server = createServer({ keys: [key] }, (socket) =>
      socket.on("error", (error) => errors.push(error)),
    );
    const port = await listen(server);
    const first = await open({ host: "127.0.0.1", port, key: secret });
    first.on("error", () => {}).resume();
    await new Promise((closed) => first.once("close", closed));
    await until(() => errors.length === 1);
    expect(errors[0]).toMatchObject({ code: "ERR_SPIPED_KEY_EXPIRED", message: "key alice expired" });
    const refused = once(server, "refused");
    await expect(connect({ host: "127.0.0.1", port, key: secret })).rejects.toMatchObject({
      code: "ERR_SPIPED_HANDSHAKE_EOF",
    });
    expect((await refused)[0]).toMatchObject({ code: "ERR_SPIPED_KEY_EXPIRED" });
  });

  it("emits an event with the error and the address of a rejected client", async () => {
    const server = createServer({ key: await loadKey(keyFile()) });
    const port = await listen(server);
    const refused = once(server, "refused");
    const { status } = await run([...commandOf("c", "spipe"), "-t", `[127.0.0.1]:${port}`, "-k", keyFile()]);
    expect(status).not.toBe(0);
    const [error, peer] = await refused;
    expect(error).toMatchObject({ code: "ERR_SPIPED_HANDSHAKE_MAC" });
    expect(peer).toMatchObject({ address: "127.0.0.1" });
  });
});

describe("connect()", () => {
  const key = Secret.fromKeyFile(Buffer.from("a key for tests"));

  it("rejects with the system error as the cause", async () => {
    const port = await freePort();
    await expect(connect({ host: "127.0.0.1", port, key })).rejects.toMatchObject({
      code: "ERR_SPIPED_CONNECT",
      cause: { code: "ECONNREFUSED" },
    });
  });

  it("rejects after the timeout if the server sends nothing", async () => {
    const silent = await serve(() => {});
    await expect(connect({ ...silent.address.connect, key, timeout: 50 })).rejects.toMatchObject({
      code: "ERR_SPIPED_HANDSHAKE_TIMEOUT",
    });
    await until(() =>
      silent.sockets.every((socket) => socket.readableEnded || socket.destroyed || socket.resume().destroyed),
    );
  });

  it("rejects with the signal's reason when the signal aborts", async () => {
    const silent = await serve(() => {});
    const reason = new Error("changed my mind");
    const controller = new AbortController();
    const attempt = connect({ ...silent.address.connect, key, signal: controller.signal });
    await until(() => silent.sockets.length === 1);
    controller.abort(reason);
    await expect(attempt).rejects.toBe(reason);
    await expect(connect({ ...silent.address.connect, key, signal: controller.signal })).rejects.toBe(reason);
  });

  it.each([
    [{ port: 0 }, "port"],
    [{ port: 65_536 }, "port"],
    [{}, "port"],
    [{ port: 1, weak: true, requireForwardSecrecy: true }, "exclude"],
    [{ host: "127.0.0.1", port: 1, localAddress: "nowhere" }, "nowhere"],
  ])("rejects the options %j", async (options, named) => {
    const error = await connect({ ...options, key }).catch((error) => error);
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toContain(named);
  });
});

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

describe("httpAgent()", () => {
  it("sends all requests over one connection with keepAlive", async () => {
    const key = Secret.fromKeyFile(Buffer.from("a key for tests"));
    const web = createHttpServer((request, response) => response.end(`you want ${request.url}`));
    const server = createServer({ key }, (socket) => web.emit("connection", socket));
    let connections = 0;
    server.on("connection", () => {
      connections += 1;
    });
    const agent = httpAgent(
      { host: "127.0.0.1", port: await listen(server), key },
      { keepAlive: true, maxSockets: 1 },
    );
    cleanUp(() => agent.destroy());
    for (const path of ["/one", "/two", "/three"]) {
      const [response] = await once(get({ agent, host: "behind.example.org", path }), "response");
      expect(String(await readAll(response))).toBe(`you want ${path}`);
    }
    expect(connections).toBe(1);
  });

  it("reports a failed connection as the request's error", async () => {
    const key = Secret.fromKeyFile(Buffer.from("a key for tests"));
    const agent = httpAgent({ host: "127.0.0.1", port: await freePort(), key });
    const [error] = await once(get({ agent, host: "behind.example.org" }), "error");
    expect(error).toMatchObject({ code: "ERR_SPIPED_CONNECT" });
  });
});

describe("the built package", () => {
  it.each([
    [
      "an ES module",
      "--input-type=module",
      'import * as spiped from "spiped"; console.log(Object.keys(spiped).sort().join())',
    ],
    ["CommonJS", "--input-type=commonjs", 'console.log(Object.keys(require("spiped")).sort().join())'],
  ])("loads as %s, without a warning", async (_what, type, code) => {
    const { stdout, stderr, status } = await run([process.execPath, type, "-e", code]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout.toString().trim().split(",")).toEqual(
      expect.arrayContaining(["HandshakeError", "PacketError", "connect", "createServer", "loadKey"]),
    );
  });

  it("rejects with an error that has a name and a code", async () => {
    const code = `
      import { connect, Secret } from "spiped";
      connect({ host: "127.0.0.1", port: 1, key: Secret.fromKeyFile(Buffer.from("x")) }).catch((e) => console.log(e.name, e.code));`;
    const { stdout } = await run([process.execPath, "--input-type=module", "-e", code]);
    expect(stdout.toString().trim()).toBe("ConnectError ERR_SPIPED_CONNECT");
  });

  it("lists only existing files in package.json", () => {
    const manifest = JSON.parse(readFileSync("package.json", "utf8"));
    for (const file of [
      ...manifest.man,
      ...Object.values<string>(manifest.bin),
      manifest.types,
      ...Object.values<string>(manifest.exports["."]),
    ])
      expect(readFileSync(file).length).toBeGreaterThan(0);
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

describe("invalid options and addresses", () => {
  it.each([undefined, "a string", Buffer.from("a buffer"), {}])(
    "are rejected with a TypeError: %s as a key",
    async (key) => {
      const wrong = key as unknown as Secret;
      await expect(connect({ port: 1, key: wrong })).rejects.toThrow(TypeError);
      expect(() => createServer({ key: wrong })).toThrow(TypeError);
      expect(() => createServer({ keys: new Map() as unknown as [] })).toThrow(TypeError);
      expect(() => createServer({ keys: [{ name: "alice", secret: wrong }] })).toThrow(TypeError);
    },
  );

  it("are rejected: a server that skips Diffie-Hellman and requires it of its clients", () => {
    const key = Secret.fromKeyFile(Buffer.from("a key for tests"));
    expect(() => createServer({ key, weak: true, requireForwardSecrecy: true })).toThrow(
      new TypeError("weak and requireForwardSecrecy exclude each other"),
    );
  });

  it("are rejected: a wrong timeout and a port that is not in an object", async () => {
    const key = Secret.fromKeyFile(Buffer.from("x"));
    for (const timeout of ["x", 0, -1, Number.NaN]) {
      await expect(connect({ port: 1, key, timeout: timeout as number })).rejects.toThrow("timeout must be");
    }
    await expect(createServer({ key }).listen(0 as unknown as { port: number })).rejects.toThrow("{ port }");
  });

  it("are reported with the address that was tried", async () => {
    const key = Secret.fromKeyFile(Buffer.from("x"));
    const port = await freePort();
    await expect(connect({ host: "127.0.0.1", port, key })).rejects.toThrow(`127.0.0.1:${port}`);
  });
});

describeIfInstalled("spiped")("a stream in an `await using` declaration", () => {
  const sizes = [5, 4 << 20];

  it.each(sizes)("delivers the %i bytes written and ends cleanly", async (size) => {
    const digester = await startDigester();
    const wire = await freeAddress();
    const key = keyFile();
    await startSpiped("c", "-d", wire, digester.address, key);
    const data = randomBytes(size);
    let socket: SpipedSocket;
    {
      await using stream = await connect({ ...wire.connect, key: await loadKey(key) });
      socket = stream;
      stream.write(data);
    }
    expect(socket.destroyed).toBe(true);
    expect(socket.errored).toBeNull();
    const sha256 = createHash("sha256").update(data).digest("hex");
    expect(digester.digests).toEqual([{ sha256, length: size }]);
  });

  it("does not wait forever for a peer that does not end, and discards what the peer sends", async () => {
    const seen: string[] = [];
    const target = await serve((socket) => {
      socket.on("data", (chunk) => seen.push(String(chunk)));
      socket.on("end", () => seen.push("end"));
      socket.write(Buffer.alloc(1 << 22));
    });
    const wire = await freeAddress();
    const key = keyFile();
    await startSpiped("c", "-d", wire, target.address, key);
    {
      await using stream = await connect({ ...wire.connect, key: await loadKey(key) });
      stream.write("data");
    }
    expect(seen).toEqual(["data", "end"]);
  });

  it("throws if the data written can't be delivered", async () => {
    const target = await serve((socket) => void socket.once("data", () => socket.resetAndDestroy()));
    const wire = await freeAddress();
    const key = keyFile();
    await startSpiped("ours", "-d", wire, target.address, key);
    const lost = async () => {
      await using stream = await connect({ ...wire.connect, key: await loadKey(key) });
      stream.write(Buffer.alloc(1 << 24));
    };
    await expect(lost()).rejects.toThrow(/ECONNRESET|EPIPE|closed/);
  });
});

describeIfInstalled("spiped")("a stream that the peer resets after data", () => {
  it("delivers all the data before it fails, also to a reader that writes after each chunk", async () => {
    const target = await serve((socket) => {
      socket.write(Buffer.alloc(200_000), async () => {
        await until(() => socket.bytesRead > 0);
        socket.resetAndDestroy();
      });
    });
    const wire = await freeAddress();
    const key = keyFile();
    await startSpiped("ours", "-d", wire, target.address, key);
    const socket = await open({ ...wire.connect, key: await loadKey(key) });
    let length = 0;
    const read = async () => {
      for await (const chunk of socket) {
        length += chunk.length;
        // The first write makes the target reset the connection while there is data left to read.
        await new Promise<void>((done) => void socket.write("seen", () => done()));
        await new Promise((later) => setTimeout(later, 20));
      }
    };
    socket.on("error", () => {});
    await expect(read()).rejects.toThrow();
    expect(length).toBe(200_000);
  });

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
