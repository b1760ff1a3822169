/** The library with Tarsnap's programs. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import {
  connect,
  createServer,
  fingerprint,
  loadKey,
  loadKeys,
  type SpipedSocket,
} from "../../../src/index.ts";
import { listen, open } from "../../support/library.ts";
import {
  cleanUp,
  commandOf,
  freeAddress,
  keyFile,
  run,
  startSpiped,
  temporaryDirectory,
  until,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import {
  digestOf,
  exchange,
  RandomSource,
  readAll,
  send,
  serve,
  startDigester,
  startEcho,
} from "../../support/servers.ts";

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
    await server.listen(wire.connect);
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
      socket.write(Buffer.alloc(200_000), () => {
        void until(() => socket.bytesRead > 0).then(() => socket.resetAndDestroy());
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
});
