/** Connection behavior from start to close, observed at both ends of real sockets. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { openSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  commandOf,
  connectTo,
  freeAddress,
  freePort,
  isListening,
  keyFile,
  run,
  start,
  startSpiped,
  type TestAddress,
  until,
} from "../../support/programs.ts";
import { rawHandshake, rawPacket } from "../../support/raw-peer.ts";
import { describeIfInstalled, itIfInstalled } from "../../support/requirements.ts";
import { exchange, readAll, serve, startEcho } from "../../support/servers.ts";

const SPIPE = commandOf("ours", "spipe");

async function startPair(target: TestAddress | string, ...options: string[]) {
  const key = keyFile();
  const middle = await freeAddress();
  const source = await freeAddress();
  const server = await startSpiped("ours", "-d", middle, target, key, ...options);
  const client = await startSpiped("ours", "-e", source, middle, key, ...options);
  return { key, middle, source, server, client };
}

const residentKiB = (pid: number) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))![1]);

describe("half-close", () => {
  it("delivers the target's data after the client has ended", async () => {
    const late = await serve((socket) => {
      socket.resume();
      socket.on("end", () => setTimeout(() => socket.end("late"), 50));
    });
    const { source } = await startPair(late.address);
    expect((await exchange(source, "question")).toString()).toBe("late");
  });

  it("delivers the client's data after the target has ended", async () => {
    const received: string[] = [];
    const short = await serve((socket) => {
      socket.end("goodbye");
      socket.on("data", (chunk) => received.push(chunk.toString()));
      socket.on("end", () => received.push("end"));
    });
    const { source } = await startPair(short.address);
    const socket = await connectTo(source);
    expect((await readAll(socket)).toString()).toBe("goodbye");
    socket.write("still here");
    await until(() => received.length > 0);
    socket.end();
    await until(() => received.includes("end"));
    expect(received.join(" ")).toBe("still here end");
  });

  it("ends both directions with FIN, without a reset", async () => {
    const seen: string[] = [];
    const target = await serve((socket) => {
      socket.resume();
      socket.on("end", () => socket.end());
      socket.on("close", () => seen.push(socket.errored?.message ?? "closed"));
    });
    const { source } = await startPair(target.address);
    for (let i = 0; i < 10; i += 1) {
      const socket = await connectTo(source);
      socket.end("x");
      await readAll(socket);
      expect(socket.errored).toBeNull();
    }
    await until(() => seen.length === 10);
    expect(new Set(seen)).toEqual(new Set(["closed"]));
  });

  it("is not confused with a reset, which is passed on as a reset", async () => {
    let reset = "";
    let arrived = false;
    const target = await serve((socket) => {
      socket.on("data", () => {
        arrived = true;
      });
      socket.on("close", () => {
        const error: NodeJS.ErrnoException | null = socket.errored;
        reset = error?.code ?? "closed";
      });
    });
    const { source } = await startPair(target.address);
    const socket = await connectTo(source);
    socket.write("x");
    await until(() => arrived);
    socket.resetAndDestroy();
    await until(() => reset !== "");
    expect(reset).toBe("ECONNRESET");
  });
});

describe("-n", () => {
  it.each(["-e", "-d"] as const)(
    "queues connections with %s, and serves them when a slot is released",
    async (mode) => {
      const echo = await startEcho();
      const key = keyFile();
      const middle = await freeAddress();
      const source = await freeAddress();
      const server = await startSpiped(
        "ours",
        "-d",
        middle,
        echo.address,
        key,
        ...(mode === "-d" ? ["-n", "2"] : []),
      );
      const client = await startSpiped(
        "ours",
        "-e",
        source,
        middle,
        key,
        ...(mode === "-e" ? ["-n", "2"] : []),
      );
      const limited = mode === "-e" ? client : server;
      const first = await connectTo(source);
      const second = await connectTo(source);
      for (const socket of [first, second]) {
        socket.write("x");
        await once(socket, "readable");
      }
      const third = exchange(source, "third");
      await until(() => limited.stderr().includes("reached"));
      expect(echo.sockets).toHaveLength(2);
      first.end();
      expect((await third).toString()).toBe("third");
      expect(limited.stderr()).toContain("spiped: Maximum number of connections (2) reached\n");
    },
  );

  it.each(["0", "-1"])("%s means no limit", async (count) => {
    const echo = await startEcho();
    const { source, server } = await startPair(echo.address, "-n", count, "-o", "60");
    const sockets = await Promise.all(Array.from({ length: 150 }, () => connectTo(source)));
    for (const socket of sockets) socket.end("x");
    for (const socket of sockets) expect((await readAll(socket)).toString()).toBe("x");
    expect(server.stderr()).toBe("");
  });

  it("does not count unauthenticated connections, and the target gets none of them", async () => {
    const echo = await startEcho();
    const { middle, source } = await startPair(echo.address, "-n", "3");
    for (let i = 0; i < 100; i += 1) await connectTo(middle);
    expect((await exchange(source, "me")).toString()).toBe("me");
    expect(echo.sockets).toHaveLength(1);
  });
});

describe("-o", () => {
  it("limits the handshake of a client whose server sends nothing", async () => {
    const silent = await serve(() => {});
    const { status, stderr } = await run([...SPIPE, "-t", silent.address.text, "-k", keyFile(), "-o", "0.3"]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr:
        "spipe: Connection error\nspipe: the peer sent no nonce within 0.3 s: check that it is a spiped -d\n",
    });
  });

  it("does not limit a connection once data flows", async () => {
    const echo = await startEcho();
    const { source } = await startPair(echo.address, "-o", "2");
    const socket = await connectTo(source);
    socket.write("early ");
    // Longer than -o.
    await new Promise((done) => setTimeout(done, 2500));
    socket.end("late");
    expect((await readAll(socket)).toString()).toBe("early late");
  });
});

describe("a target", () => {
  it("that refuses connections makes spipe's handshake fail, and an -e client's connection close", async () => {
    const { middle, source, key } = await startPair(`[127.0.0.1]:${await freePort()}`);
    const { status, stderr } = await run([...SPIPE, "-t", middle.text, "-k", key]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr:
        "spipe: Handshake failed\nspipe: the peer closed the connection after our proof: probably its key differs, or it cannot connect to its target\n",
    });
    expect((await exchange(source, "x").catch(() => Buffer.alloc(0))).toString()).toBe("");
  });

  it("is tried at each of its addresses in turn", async () => {
    // localhost is ::1 and 127.0.0.1; the service listens on one of them only.
    const echo = await startEcho();
    const { port } = echo.address.connect as { port: number };
    const { source } = await startPair(`localhost:${port}`);
    expect((await exchange(source, "found")).toString()).toBe("found");
  });

  it("is connected to from the -b address", async () => {
    const seen: (string | undefined)[] = [];
    const target = await serve((socket) => {
      seen.push(socket.remoteAddress);
      socket.end();
    });
    const { source } = await startPair(target.address, "-b", "127.0.0.9");
    await exchange(source, "x");
    expect(seen).toEqual(["127.0.0.9"]);
  });
});

describe("a reader that stops reading", () => {
  it("stops the sender, uses little memory, and gets everything later", { timeout: 90_000 }, async () => {
    const size = 64 * 1024 * 1024;
    const stalled = await serve((socket) => void socket.pause());
    const { source, server, client } = await startPair(stalled.address);
    const socket = await connectTo(source);
    socket.write("x");
    await until(() => stalled.sockets.length === 1);
    const before = [residentKiB(server.pid), residentKiB(client.pid)];
    socket.end(Buffer.alloc(size - 1));
    let last = -1;
    // The sender has stopped when its queue no longer changes; there is no event for that.
    await until(async () => {
      const same = last === socket.writableLength;
      last = socket.writableLength;
      await new Promise((done) => setTimeout(done, 300));
      return same;
    });
    expect(socket.writableLength).toBeGreaterThan(0);
    const after = [residentKiB(server.pid), residentKiB(client.pid)];
    for (const i of [0, 1]) expect(after[i]! - before[i]!).toBeLessThan(16 * 1024);
    let received = 0;
    stalled.sockets[0]!.on("data", (chunk) => {
      received += chunk.length;
    });
    stalled.sockets[0]!.resume();
    await until(() => received === size);
  });
});

describeIfInstalled("ss")("socket options", () => {
  const timers = (port: number) =>
    spawnSync("ss", ["-tnoH", `sport = :${port} or dport = :${port}`], { encoding: "utf8" }).stdout;

  it("enable keep-alive unless -j is given", async () => {
    for (const [options, alive] of [
      [[], true],
      [["-j"], false],
    ] as const) {
      const echo = await startEcho();
      const { source } = await startPair(echo.address, ...options);
      const socket = await connectTo(source);
      socket.write("x");
      await once(socket, "readable");
      const { port } = echo.address.connect as { port: number };
      expect(timers(port).includes("keepalive")).toBe(alive);
    }
  });
});

describe("spipe", () => {
  async function withServer() {
    const echo = await startEcho();
    const key = keyFile();
    const middle = await freeAddress();
    await startSpiped("ours", "-d", middle, echo.address, key);
    return { echo, command: [...SPIPE, "-t", middle.text, "-k", key], middle, key };
  }

  it("sends input that was written before the connection was open", async () => {
    const { command } = await withServer();
    expect(await run(command, "early")).toMatchObject({
      status: 0,
      stdout: Buffer.from("early"),
      stderr: "",
    });
  });

  it("waits for its input after the peer has ended, as Tarsnap's does, but not with --fragile", async () => {
    const goodbye = await serve((socket) => {
      socket.resume();
      socket.end("goodbye");
    });
    const key = keyFile();
    const middle = await freeAddress();
    await startSpiped("ours", "-d", middle, goodbye.address, key);
    const command = [...SPIPE, "-t", middle.text, "-k", key];

    const waiting = start(command);
    await until(() => waiting.stdout().toString() === "goodbye");
    // With --fragile it would have ended by now.
    await new Promise((done) => setTimeout(done, 300));
    expect(waiting.child.exitCode).toBeNull();
    waiting.child.stdin!.end();
    expect(await waiting.ended).toEqual({ status: 0, signal: null });

    const fragile = start([...command, "--fragile"]);
    expect(await fragile.ended).toEqual({ status: 0, signal: null });
    expect(fragile.stdout().toString()).toBe("goodbye");
  });

  it("exits when the connection is reset, although its input stays open", async () => {
    const { command, echo } = await withServer();
    const spipe = start(command);
    spipe.child.stdin!.write("x");
    await until(() => spipe.stdout().length === 1);
    echo.sockets[0]!.resetAndDestroy();
    expect(await spipe.ended).toEqual({ status: 1, signal: null });
    expect(spipe.stderr()).toMatch(/^spipe: Connection error\nspipe: .* reset the connection: .*\n$/);
  });

  it("returns 0 on SIGTERM", async () => {
    const { command } = await withServer();
    const spipe = start(command);
    spipe.child.stdin!.write("x");
    await until(() => spipe.stdout().length === 1);
    process.kill(spipe.pid, "SIGTERM");
    expect(await spipe.ended).toEqual({ status: 0, signal: null });
  });

  itIfInstalled("spipe")("is killed by SIGPIPE when its output is not read, as Tarsnap's is", async () => {
    const { command } = await withServer();
    for (const program of [command, ["spipe", ...command.slice(2)]]) {
      const script = `"$@" < /dev/zero | head -c 1 >/dev/null; echo "\${PIPESTATUS[0]}"`;
      const { stdout } = await run(["bash", "-c", script, "bash", ...program]);
      expect(stdout.toString()).toBe("141\n");
    }
  });

  it("reports that its output is full", async () => {
    const { command } = await withServer();
    const full = openSync("/dev/full", "w");
    const spipe = start(command, { stdio: ["pipe", full, "pipe"] });
    spipe.child.stdin!.end("x");
    expect(await spipe.ended).toEqual({ status: 1, signal: null });
    expect(spipe.stderr()).toBe("spipe: Error writing: No space left on device\n");
  });

  it("reports that its input can't be read", async () => {
    const { command } = await withServer();
    const directory = openSync("/tmp", "r");
    const spipe = start(command, { stdio: [directory, "pipe", "pipe"] });
    expect(await spipe.ended).toEqual({ status: 1, signal: null });
    expect(spipe.stderr()).toBe("spipe: Error reading: Is a directory\n");
  });

  it("works with a closed or empty input", async () => {
    const { command } = await withServer();
    for (const redirect of ["<&-", "</dev/null"]) {
      const { stdout } = await run(["sh", "-c", `"$@" ${redirect}; echo $?`, "sh", ...command]);
      expect(stdout.toString()).toBe("0\n");
    }
  });
});

describe("spipe with its output closed", () => {
  it("reports that data was discarded, unless its output is /dev/null", async () => {
    const target = await serve((socket) => socket.end("lost"));
    const key = keyFile();
    const wire = await freeAddress();
    await startSpiped("ours", "-d", wire, target.address, key);
    const command = [...commandOf("ours", "spipe"), "-t", wire.text, "-k", key];
    for (const [redirect, message] of [
      [">&-", "spipe: 4 bytes were received and discarded: standard output is closed or /dev/null\n"],
      ["<&- >&-", "spipe: 4 bytes were received and discarded: standard output is closed or /dev/null\n"],
      [">/dev/null", ""],
    ]) {
      const { status, stderr } = await run(["sh", "-c", `"$@" ${redirect}`, "sh", ...command]);
      expect({ status, stderr }).toEqual({ status: 0, stderr: message });
    }
  });
});

describe("clients that exceed the connection queue", () => {
  it("are closed, and the reason is logged", async () => {
    // The client with the slot keeps it: this target never answers a handshake.
    const target = await serve((socket) => void socket.resume());
    const source = await freeAddress();
    const daemon = await startSpiped(
      "ours",
      "-e",
      source,
      target.address,
      keyFile(),
      ...["-n", "1", "-o", "60"],
      ...["--log-level", "info"],
    );
    for (let i = 0; i < 11; i += 1) await Promise.all(Array.from({ length: 100 }, () => connectTo(source)));
    await until(() => daemon.stderr().includes("connection queue full"));
    // Queued clients are closed, not drained.
    process.kill(daemon.pid, "SIGTERM");
    await until(() => !isListening(source));
    expect(target.sockets).toHaveLength(1);
    target.sockets[0]!.destroy();
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });
});

describe("a client that authenticates during a drain", () => {
  it.each(["1", "2"])("gets a free slot, but is not queued for one, with %s workers", async (workers) => {
    const echo = await startEcho();
    const key = keyFile();
    const wire = await freeAddress();
    const options = ["-n", "2", "-o", "60", "--workers", workers];
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, ...options);
    const held = await connectTo(wire);
    expect(await rawHandshake(held, key)).toBeDefined();
    const late = [await connectTo(wire), await connectTo(wire)];
    // The daemon has accepted them when it has sent its nonce.
    await Promise.all(late.map((socket) => once(socket, "readable")));
    process.kill(daemon.pid, "SIGTERM");
    await until(() => !isListening(wire));
    const sessions = await Promise.all(late.map((socket) => rawHandshake(socket, key)));
    expect(sessions.filter((session) => session !== undefined)).toHaveLength(1);
    for (const socket of [held, ...late]) socket.destroy();
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });
});

describe("a reset at an awkward moment", () => {
  /** Starts a daemon; `atOnce` stops it while both of its peers act, so that it sees all events together. */
  async function withTarget(...options: string[]) {
    const target = await serve((socket) => void socket.resume());
    const key = keyFile();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, target.address, key, ...options);
    const atOnce = async (act: () => void) => {
      process.kill(daemon.pid, "SIGSTOP");
      act();
      await new Promise((done) => setTimeout(done, 50));
      process.kill(daemon.pid, "SIGCONT");
    };
    return { target, key, wire, daemon, atOnce };
  }

  it("during a half-close releases the descriptor and the slot, and the daemon drains", async () => {
    const { target, key, wire, daemon, atOnce } = await withTarget("-n", "3");
    for (let i = 0; i < 5; i += 1) {
      const client = await connectTo(wire);
      const session = await rawHandshake(client, key);
      await until(() => target.sockets.length === i + 1);
      await atOnce(() => {
        target.sockets[i]!.end();
        const packet = rawPacket(session!.up, 0, "forged");
        packet[5]! ^= 1;
        client.write(packet);
      });
      await until(() => target.sockets[i]!.destroyed);
      client.destroy();
    }
    process.kill(daemon.pid, "SIGTERM");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });

  it("right after data is not logged as a clean end", async () => {
    const { target, key, wire, daemon, atOnce } = await withTarget("--log-level", "info");
    const client = await connectTo(wire);
    await rawHandshake(client, key);
    await until(() => target.sockets.length === 1);
    await atOnce(() => {
      target.sockets[0]!.write(Buffer.alloc(2000), () => target.sockets[0]!.resetAndDestroy());
    });
    await until(() => daemon.stderr().includes(" ended after "));
    expect(daemon.stderr()).toMatch(/bytes decrypted: plaintext side: reset\n/);
  });
});

describe("packets from another implementation", () => {
  it("are accepted at any size and reassembled", async () => {
    const echo = await startEcho();
    const { middle, key } = await startPair(echo.address);
    const socket = await connectTo(middle);
    const keys = await rawHandshake(socket, key);
    for (let i = 0; i < 50; i += 1) socket.write(rawPacket(keys!.up, i, "y".repeat(1 + ((i * 37) % 1024))));
    socket.end();
    await readAll(socket);
    expect(echo.sockets[0]!.bytesRead).toBe(
      Array.from({ length: 50 }, (_, i) => 1 + ((i * 37) % 1024)).reduce((a, b) => a + b),
    );
  });
});
