/** Runs the programs under test, ours and Tarsnap's, and other processes that tests start. */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach } from "vitest";

/** The implementation of a program: this project's or Tarsnap's ("c"). */
export type Implementation = "ours" | "c";
export type Program = "spiped" | "spipe";

/** Returns the command that runs a program. */
export function commandOf(maker: Implementation, program: Program): readonly [string, ...string[]] {
  return maker === "c" ? [program] : [process.execPath, resolve(`dist/bin/${program}.cjs`)];
}

/** Returns the command of a copy of our program that other users can read, unlike a repository below /root. */
export function readableCommandOf(program: Program): readonly [string, ...string[]] {
  const directory = temporaryDirectory();
  chmodSync(directory, 0o755);
  const path = join(directory, `${program}.cjs`);
  copyFileSync(`dist/bin/${program}.cjs`, path);
  return [process.execPath, path];
}

const cleanups: (() => void | Promise<void>)[] = [];

/** Registers an action that runs at the end of the current test, whether it passes or fails. */
export function cleanUp(action: () => void | Promise<void>): void {
  cleanups.push(action);
}

afterEach(async () => {
  for (let action = cleanups.pop(); action !== undefined; action = cleanups.pop()) await action();
});

/** Creates a directory that is removed at the end of the test. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "spiped-test-"));
  cleanUp(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Creates a key file with random contents. */
export function keyFile(): string {
  const path = join(temporaryDirectory(), "key");
  writeFileSync(path, randomBytes(32), { mode: 0o600 });
  return path;
}

/** A started process and its output. */
export interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly stdout: () => Buffer;
  readonly stderr: () => string;
  /** Resolves with exit status and signal when the process has exited and its streams are read. */
  readonly ended: Promise<{ status: number | null; signal: NodeJS.Signals | null }>;
}

/** Starts a process that is killed at the end of the test. */
export function start(command: readonly string[], options: SpawnOptions = {}): Running {
  const [file, ...args] = command;
  const child = spawn(file!, args, { stdio: ["pipe", "pipe", "pipe"], ...options });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout?.on("data", (chunk) => out.push(chunk));
  child.stderr?.on("data", (chunk) => err.push(chunk));
  child.stdin?.on("error", () => {});
  const ended = once(child, "close").then(([status, signal]) => ({ status, signal }));
  cleanUp(async () => {
    // A process that is killed writes no coverage.
    if (process.env.NODE_V8_COVERAGE !== undefined && !child.killed) {
      child.kill("SIGTERM");
      await Promise.race([ended, new Promise((later) => setTimeout(later, 1000))]);
    }
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
    await ended;
  });
  return {
    child,
    pid: child.pid!,
    stdout: () => Buffer.concat(out),
    stderr: () => Buffer.concat(err).toString(),
    ended,
  };
}

/** Runs a process with the given standard input until it exits. */
export async function run(
  command: readonly string[],
  input: string | Buffer = "",
  options: SpawnOptions = {},
) {
  const process = start(command, options);
  process.child.stdin?.end(input);
  const { status, signal } = await process.ended;
  return { status, signal, stdout: process.stdout(), stderr: process.stderr() };
}

/**
 * Number of ports per test process. Tests listen on ports below the kernel's ephemeral range, and concurrent test
 * processes have separate ranges, so that a port is not taken between the check whether it is free and its use.
 */
const PORTS_EACH = 5000;
const firstPort = 10_000 + (Number(process.env.VITEST_POOL_ID ?? 0) % 4) * PORTS_EACH;
let lastPort = randomInt(PORTS_EACH);

/** Returns a TCP port that is currently free. */
export async function freePort(host = "127.0.0.1"): Promise<number> {
  for (;;) {
    lastPort = (lastPort + 1) % PORTS_EACH;
    const port = firstPort + lastPort;
    const server = createServer().listen(port, host);
    const isFree = await once(server, "listening").then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code !== "EADDRINUSE") throw error;
        return false;
      },
    );
    await new Promise((done) => server.close(done));
    if (isFree) return port;
  }
}

/** The kind of socket over which a test's programs connect. */
export type Family = "IPv4" | "IPv6" | "UNIX";

/** An address in the syntax of the programs and as options of `net.connect`. */
export interface TestAddress {
  readonly text: string;
  readonly connect: { host: string; port: number } | { path: string };
}

/** Returns an address that is not in use. */
export async function freeAddress(family: Family = "IPv4"): Promise<TestAddress> {
  if (family === "UNIX") {
    const path = join(temporaryDirectory(), "socket");
    return { text: path, connect: { path } };
  }
  const host = family === "IPv4" ? "127.0.0.1" : "::1";
  const port = await freePort(host);
  return { text: `[${host}]:${port}`, connect: { host, port } };
}

/** Maximum time `until` waits, in ms: a little less than most tests may take, so that the error names the place. */
const MAX_WAIT_MS = 55_000;

/** Waits until a condition is true. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + MAX_WAIT_MS;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not true within ${MAX_WAIT_MS / 1000} s: ${condition}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** Returns true if the kernel has a listening socket at the address. Connecting would count as a client. */
export function isListening(address: TestAddress): boolean {
  if ("path" in address.connect) {
    // The file exists since bind(); the flag for accepting connections, __SO_ACCEPTCON, is set by listen().
    const { path } = address.connect;
    return readFileSync("/proc/net/unix", "latin1")
      .split("\n")
      .some((line) => line.endsWith(` ${path}`) && line.split(" ")[3] === "00010000");
  }
  const port = address.connect.port.toString(16).toUpperCase().padStart(4, "0");
  const table = readFileSync(
    address.connect.host.includes(":") ? "/proc/net/tcp6" : "/proc/net/tcp",
    "latin1",
  );
  return table.split("\n").some((line) => {
    const [, local, , state] = line.trim().split(/\s+/);
    return state === "0A" && local?.endsWith(`:${port}`);
  });
}

/**
 * Waits until a daemon listens. Does not poll with Tarsnap's `spipe`, which may crash or hang if its connection is
 * refused.
 *
 * @throws Error with the daemon's standard error if it exits first.
 */
export async function untilListening(daemon: Running, source: TestAddress): Promise<void> {
  let gone = false;
  void daemon.ended.then(() => {
    gone = true;
  });
  await until(() => gone || isListening(source));
  if (gone) throw new Error(`spiped ended at once: ${daemon.stderr()}`);
}

/** Starts `spiped` in the foreground and waits until it listens. */
export async function startSpiped(
  maker: Implementation,
  mode: "-e" | "-d",
  source: TestAddress,
  target: TestAddress | string,
  key: string,
  ...more: string[]
): Promise<Running> {
  const to = typeof target === "string" ? target : target.text;
  const daemon = start([
    ...commandOf(maker, "spiped"),
    "-F",
    mode,
    "-s",
    source.text,
    "-t",
    to,
    "-k",
    key,
    ...more,
  ]);
  await untilListening(daemon, source);
  return daemon;
}

/** Connects and returns the socket, which is destroyed at the end of the test. */
export async function connectTo(address: TestAddress) {
  const socket = connect({ ...address.connect, allowHalfOpen: true });
  cleanUp(() => void socket.destroy());
  await once(socket, "connect");
  socket.on("error", () => {});
  return socket;
}
