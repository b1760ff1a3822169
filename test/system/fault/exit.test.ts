/**
 * How our programs exit: with all output delivered, with their status, and without `process.exit`, which may hang
 * (src/daemon/process/end-process.ts).
 *
 * EXIT_RUNS sets the number of transfers on a busy machine; scripts/exit-hang.mjs runs any number.
 */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import {
  connectTo,
  freeAddress,
  keyFile,
  type Program,
  run,
  start,
  startSpiped,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, serve, startEcho } from "../../support/servers.ts";

const RUNS = Number(process.env.EXIT_RUNS ?? 24);

/** Returns the command of a program that reports a call of `process.exit`. */
const watched = (program: Program, ...options: string[]) => [
  process.execPath,
  ...["--require", resolve("test/support/report-exit.cjs")],
  ...options,
  resolve(`dist/bin/${program}.cjs`),
];

/** Starts `spiped -d` in front of an echo server; returns the command of a spipe that connects to it. */
async function withEcho(...options: string[]) {
  const key = keyFile();
  const echo = await startEcho();
  const wire = await freeAddress();
  await startSpiped("ours", "-d", wire, echo.address, key);
  return { echo, command: [...watched("spipe", ...options), "-t", wire.text, "-k", key] };
}

describe("spipe exits without process.exit", () => {
  it("after a transfer, with 0", async () => {
    const { command } = await withEcho();
    const data = randomBytes(3_000_000);
    const { status, stdout, stderr } = await run(command, data);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout.equals(data)).toBe(true);
  });

  it("with --fragile, while its input stays open, with 0", async () => {
    const { command, echo } = await withEcho();
    const spipe = start([...command, "--fragile"]);
    spipe.child.stdin!.write("x");
    await until(() => spipe.stdout().length === 1);
    echo.sockets[0]!.end();
    expect(await spipe.ended).toEqual({ status: 0, signal: null });
    expect(spipe.stderr()).toBe("");
  });

  it("after an error, with 1", async () => {
    const { command, echo } = await withEcho();
    const spipe = start(command);
    spipe.child.stdin!.write("x");
    await until(() => spipe.stdout().length === 1);
    echo.sockets[0]!.resetAndDestroy();
    expect(await spipe.ended).toEqual({ status: 1, signal: null });
    expect(spipe.stderr()).toMatch(/^spipe: Connection error\nspipe: .* reset the connection: .*\n$/);
  });

  it("after a refused connection, with 1", async () => {
    const { text } = await freeAddress();
    const { status, stderr } = await run([...watched("spipe"), "-t", text, "-k", keyFile()]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: `spipe: Could not connect\nspipe: ${text}: Connection refused: check that spiped -d is running there\n`,
    });
  });

  it("on SIGTERM during a transfer whose target does not read, with 0", async () => {
    const key = keyFile();
    const target = await serve((socket) => void socket.pause());
    const wire = await freeAddress();
    await startSpiped("ours", "-d", wire, target.address, key);
    const spipe = start([...watched("spipe"), "-t", wire.text, "-k", key]);
    const chunk = randomBytes(1 << 20);
    // More than all buffers on the path hold, so that spipe has pending writes to the connection.
    for (let i = 0; i < 64; i += 1) spipe.child.stdin!.write(chunk);
    await until(() => target.sockets.length === 1);
    let before = -1;
    await until(async () => {
      const last = before;
      before = spipe.child.stdin!.writableLength;
      await delay(100);
      return before === last;
    });
    process.kill(spipe.pid, "SIGTERM");
    expect(await spipe.ended).toEqual({ status: 0, signal: null });
    expect(spipe.stderr()).toBe("");
  });

  it("on SIGTERM during the handshake, with 0", async () => {
    const silent = await serve((socket) => void socket.resume());
    const spipe = start([...watched("spipe"), "-t", silent.address.text, "-k", keyFile()]);
    await until(() => silent.sockets.length === 1);
    process.kill(spipe.pid, "SIGTERM");
    expect(await spipe.ended).toEqual({ status: 0, signal: null });
    expect(spipe.stderr()).toBe("");
  });

  it("after its help text and after a usage error", async () => {
    const { status, stdout, stderr } = await run([...watched("spipe"), "-h"]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout.toString()).toMatch(/^usage: spipe [\s\S]*\n$/);
    const wrong = await run([...watched("spipe"), "-t", "nowhere"]);
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).not.toContain("process.exit");
  });
});

describe("spiped exits without process.exit", () => {
  /** Starts a daemon that serves a client. */
  async function serveAndDrain(...options: string[]) {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    // Workers may be slow to start, and the client waits for them.
    const more = ["-s", wire.text, "-t", echo.address.text, "-k", key, "-o", "60", ...options];
    const daemon = start([...watched("spiped"), "-F", "-d", ...more]);
    await untilListening(daemon, wire);
    await startSpiped("ours", "-e", plain, wire, key, "-o", "60");
    const data = randomBytes(1_000_000);
    expect((await exchange(plain, data)).equals(data)).toBe(true);
    return daemon;
  }

  it.each([
    ["alone", []],
    ["with workers", ["--workers", "2"]],
  ])("after a drain, with 0, %s", async (_how, options) => {
    const daemon = await serveAndDrain(...options);
    process.kill(daemon.pid, "SIGTERM");
    // Workers share the standard error, so it ends when the last of them exits.
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
    expect(daemon.stderr()).toBe("");
  });

  it("after a drain with an open connection to its status address, with 0", async () => {
    const status = await freeAddress();
    const daemon = await serveAndDrain("--metrics", status.text);
    const scraper = await connectTo(status);
    scraper.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await once(scraper, "data");
    process.kill(daemon.pid, "SIGTERM");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
    expect(daemon.stderr()).toBe("");
  });

  it("as the parent of a daemon, and as the daemon", async () => {
    const pidFile = join(temporaryDirectory(), "pid");
    const { text } = await freeAddress();
    const args = ["-d", "-s", text, "-t", "[127.0.0.1]:1", "-k", keyFile(), "-p", pidFile];
    const parent = start([...watched("spiped"), ...args]);
    const [status] = await once(parent.child, "exit");
    expect(status).toBe(0);
    process.kill(Number(readFileSync(pidFile, "latin1")), "SIGTERM");
    // The daemon has the parent's standard error.
    await parent.ended;
    expect(parent.stderr()).toBe("");
  });

  it("if it cannot listen, with 1", async () => {
    const { address } = await startEcho();
    const args = ["-F", "-d", "-s", address.text, "-t", "[127.0.0.1]:1", "-k", keyFile()];
    const { status, stderr } = await run([...watched("spiped"), ...args]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^spiped: Error binding socket: Address already in use\n/);
  });
});

describe("a program that exits", () => {
  it("calls process.exit if Node lacks the function that lists open handles", async () => {
    const without = join(temporaryDirectory(), "without.cjs");
    writeFileSync(without, "delete process._getActiveHandles;");
    const { command } = await withEcho("--require", without);
    const spipe = start(command);
    spipe.child.stdin!.write("x");
    await until(() => spipe.stdout().length === 1);
    process.kill(spipe.pid, "SIGTERM");
    expect(await spipe.ended).toEqual({ status: 0, signal: null });
    expect(spipe.stderr()).toBe("process.exit\n");
  });

  it.each(["socket", "pipe"])("has delivered all output to a slow reader of a %s", async (kind) => {
    const { command } = await withEcho();
    const data = randomBytes(4_000_000);
    // Node gives its children sockets; a shell makes a pipe.
    const wrapped = kind === "socket" ? command : ["bash", "-c", 'set -o pipefail; "$@" | cat', "bash"];
    const spipe = start(kind === "socket" ? wrapped : [...wrapped, ...command]);
    spipe.child.stdin!.end(data);
    const { stdout } = spipe.child;
    stdout!.removeAllListeners("data");
    const hash = createHash("sha256");
    for await (const chunk of stdout!) {
      hash.update(chunk);
      await delay(2);
    }
    expect(await spipe.ended).toEqual({ status: 0, signal: null });
    expect(hash.digest("hex")).toBe(createHash("sha256").update(data).digest("hex"));
    expect(spipe.stderr()).toBe("");
  });
});

describeIfInstalled("spiped", "setpriv")("on a busy machine", () => {
  it(`none of ${RUNS} transfers leaves a spipe running`, { timeout: 120_000 + RUNS * 5000 }, async () => {
    const canStress = Number(process.versions.node.split(".")[0]) >= 24;
    const how = canStress ? ["--stress", "--mib", "2-4"] : ["--mib", "10-20"];
    const args = ["--node", process.execPath, "--runs", String(RUNS), "--wait", "30", ...how];
    const { status, stdout } = await run([process.execPath, "scripts/exit-hang.mjs", ...args]);
    expect(stdout.toString()).toContain(`: ${RUNS} good\n`);
    expect(status).toBe(0);
  });
});
