/** How connections live and end, seen from both ends of real sockets. */
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
} from "../support/programs.ts";
import { rawHandshake, rawPacket } from "../support/raw-peer.ts";
import { describeWith, itWith } from "../support/requirements.ts";
import { exchange, readAll, serve, startEcho } from "../support/servers.ts";

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
  it("lets a late answer through after the client has finished", async () => {
    const late = await serve((socket) => {
      socket.resume();
      socket.on("end", () => setTimeout(() => socket.end("late"), 50));
    });
    const { source } = await startPair(late.address);
    expect((await exchange(source, "question")).toString()).toBe("late");
  });

  it("lets a client go on after the target has finished", async () => {
    const heard: string[] = [];
    const short = await serve((socket) => {
      socket.end("goodbye");
      socket.on("data", (chunk) => heard.push(chunk.toString()));
      socket.on("end", () => heard.push("end"));
    });
    const { source } = await startPair(short.address);
    const socket = await connectTo(source);
    expect((await readAll(socket)).toString()).toBe("goodbye");
    socket.write("still here");
    await until(() => heard.length > 0);
    socket.end();
    await until(() => heard.includes("end"));
    expect(heard.join(" ")).toBe("still here end");
  });

  it("ends both sides with FIN, without a reset", async () => {
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

  it("is passed on as a reset when a side is reset", async () => {
    let reset = "";
    let arrived = false;
    const target = await serve((socket) => {
      socket.on("data", () => {
        arrived = true;
      });
      socket.on("close", () => {
        reset = (socket.errored as NodeJS.ErrnoException | null)?.code ?? "closed";
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
    "makes connections wait with %s, and serves them when a slot frees",
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

  it("is not used up by strangers, and they never reach the target", async () => {
    const echo = await startEcho();
    const { middle, source } = await startPair(echo.address, "-n", "3");
    for (let i = 0; i < 100; i += 1) await connectTo(middle);
    expect((await exchange(source, "me")).toString()).toBe("me");
    expect(echo.sockets).toHaveLength(1);
  });
});

describe("-o", () => {
  it("limits the handshake of a client whose server says nothing", async () => {
    const silent = await serve(() => {});
    const { status, stderr } = await run([...SPIPE, "-t", silent.address.text, "-k", keyFile(), "-o", "0.3"]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: "spipe: Connection error\nspipe: the peer sent no nonce within 0.3 s: is it a spiped -d?\n",
    });
  });

  it("does not limit a connection once data flows", async () => {
    const echo = await startEcho();
    const { source } = await startPair(echo.address, "-o", "0.2");
    const socket = await connectTo(source);
    socket.write("early ");
    await new Promise((done) => setTimeout(done, 600));
    socket.end("late");
    expect((await readAll(socket)).toString()).toBe("early late");
  });
});

describe("a target", () => {
  it("that refuses looks like a failed handshake to spipe, and ends an -e client's connection", async () => {
    const { middle, source, key } = await startPair(`[127.0.0.1]:${await freePort()}`);
    const { status, stderr } = await run([...SPIPE, "-t", middle.text, "-k", key]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr:
        "spipe: Handshake failed\nspipe: the peer closed the connection after our proof: most often another key, or its target refuses\n",
    });
    expect((await exchange(source, "x").catch(() => Buffer.alloc(0))).toString()).toBe("");
  });

  it("is tried at each of its addresses in order", async () => {
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
  it("stops the sender, costs no memory, and gets everything later", { timeout: 90_000 }, async () => {
    const size = 64 * 1024 * 1024;
    const stalled = await serve((socket) => void socket.pause());
    const { source, server, client } = await startPair(stalled.address);
    const socket = await connectTo(source);
    socket.write("x");
    await until(() => stalled.sockets.length === 1);
    const before = [residentKiB(server.pid), residentKiB(client.pid)];
    socket.end(Buffer.alloc(size - 1));
    let last = -1;
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

describeWith("ss")("socket options", () => {
  const timers = (port: number) =>
    spawnSync("ss", ["-tnoH", `sport = :${port} or dport = :${port}`], { encoding: "utf8" }).stdout;

  it("keep-alive is on, unless -j says otherwise", async () => {
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

  it("sends what was written before the connection was up", async () => {
    const { command } = await withServer();
    expect(await run(command, "early")).toMatchObject({
      status: 0,
      stdout: Buffer.from("early"),
      stderr: "",
    });
  });

  it("waits for its input after the peer has finished, as the original does, but not with --fragile", async () => {
    const goodbye = await serve((socket) => {
      socket.resume();
      socket.end("goodbye");
    });
    const key = keyFile();
    const middle = await freeAddress();
    await startSpiped("ours", "-d", middle, goodbye.address, key);
    const command = [...SPIPE, "-t", middle.text, "-k", key];

    const patient = start(command);
    await until(() => patient.stdout().toString() === "goodbye");
    await new Promise((done) => setTimeout(done, 300));
    expect(patient.child.exitCode).toBeNull();
    patient.child.stdin!.end();
    expect(await patient.ended).toEqual({ status: 0, signal: null });

    const fragile = start([...command, "--fragile"]);
    expect(await fragile.ended).toEqual({ status: 0, signal: null });
    expect(fragile.stdout().toString()).toBe("goodbye");
  });

  it("ends at once when the peer is reset, although its input stays open", async () => {
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

  itWith("spipe")("dies of SIGPIPE when nobody reads its output, as the original does", async () => {
    const { command } = await withServer();
    for (const program of [command, ["spipe", ...command.slice(2)]]) {
      const script = `"$@" < /dev/zero | head -c 1 >/dev/null; echo "\${PIPESTATUS[0]}"`;
      const { stdout } = await run(["bash", "-c", script, "bash", ...program]);
      expect(stdout.toString()).toBe("141\n");
    }
  });

  it("says so when its output is full", async () => {
    const { command } = await withServer();
    const full = openSync("/dev/full", "w");
    const spipe = start(command, { stdio: ["pipe", full, "pipe"] });
    spipe.child.stdin!.end("x");
    expect(await spipe.ended).toEqual({ status: 1, signal: null });
    expect(spipe.stderr()).toBe("spipe: Error writing: No space left on device\n");
  });

  it("says so when its input can't be read", async () => {
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
  it("says that data was lost, unlike with its output in /dev/null", async () => {
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

describe("more clients than may wait for a slot", () => {
  it("are turned away, and the log says why", async () => {
    // Whoever has the slot keeps it: this target never answers a handshake.
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
    await until(() => daemon.stderr().includes("too many connections wait for a slot"));
    // Who waits has nothing to drain.
    process.kill(daemon.pid, "SIGTERM");
    await until(() => !isListening(source));
    expect(target.sockets).toHaveLength(1);
    target.sockets[0]!.destroy();
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });
});

describe("a client who proves its key during a drain", () => {
  it.each(["1", "2"])("gets a free slot, and waits for none, with %s workers", async (workers) => {
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
  /** A daemon that is stopped while both of its peers act, so that it sees all of it at once. */
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

  it("while a half-close is under way gives back descriptor and slot, and the daemon drains", async () => {
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

  it("right behind data is no orderly end", async () => {
    const { target, key, wire, daemon, atOnce } = await withTarget("--log-level", "info");
    const client = await connectTo(wire);
    await rawHandshake(client, key);
    await until(() => target.sockets.length === 1);
    await atOnce(() => {
      target.sockets[0]!.write(Buffer.alloc(2000), () => target.sockets[0]!.resetAndDestroy());
    });
    await until(() => daemon.stderr().includes(" ended after "));
    expect(daemon.stderr()).toMatch(/bytes decrypted: plain side: reset\n/);
  });
});

describe("packets of another implementation", () => {
  it("of any size are put together again", async () => {
    const echo = await startEcho();
    const { middle, key } = await startPair(echo.address);
    const socket = await connectTo(middle);
    const keys = await rawHandshake(socket, key);
    for (let i = 0; i < 50; i += 1) socket.write(rawPacket(keys!.up, i, "y".repeat(1 + ((i * 37) % 1024))));
    socket.end();
    let bytes = 0;
    echo.sockets[0]!.on("data", (chunk) => {
      bytes += chunk.length;
    });
    await readAll(socket);
    expect(bytes).toBe(Array.from({ length: 50 }, (_, i) => 1 + ((i * 37) % 1024)).reduce((a, b) => a + b));
  });
});
