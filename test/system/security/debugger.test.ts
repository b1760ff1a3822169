/** SIGUSR1 makes Node open a debugger on a TCP port, where any local user could run code in the process. */
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withoutFailureLines } from "../../support/log-lines.ts";
import {
  cleanUp,
  commandOf,
  freeAddress,
  keyFile,
  type Running,
  start,
  startSpiped,
  type TestAddress,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { exchange, startEcho } from "../../support/servers.ts";
import { listeningPorts } from "../../support/sockets.ts";

const SPIPED = commandOf("ours", "spiped");
const portOf = (address: TestAddress) => (address.connect as { port: number }).port;
const childrenOf = (pid: number) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim().split(" ").filter(Boolean).map(Number);

/** Returns true if a process has SIGUSR1 blocked, which it then is since before its first line of code. */
function blocksSignal(pid: number): boolean {
  const [, mask] = /^SigBlk:\s+([\da-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))!;
  return (BigInt(`0x${mask}`) & (1n << 9n)) !== 0n;
}

const canBlock = process.allowedNodeEnvironmentFlags.has("--disable-sigusr1");

/** Starts an encrypting daemon in front of a decrypting one, so that an exchange runs the event loops of both. */
async function startPair(...options: string[]) {
  const echo = await startEcho();
  const [plain, wire, key] = [await freeAddress(), await freeAddress(), keyFile()];
  const server = await startSpiped("ours", "-d", wire, echo.address, key, ...options);
  const client = await startSpiped("ours", "-e", plain, wire, key);
  return { plain, wire, key, server, client };
}

/** Sends the signal repeatedly while data passes. */
async function signalWhile(pids: readonly number[], pass: () => Promise<void>): Promise<void> {
  for (let i = 0; i < 20; i += 1) {
    for (const pid of pids) process.kill(pid, "SIGUSR1");
    await pass();
  }
}

describe("SIGUSR1", () => {
  it("has no effect on a daemon in the foreground", async () => {
    const { plain, wire, server, client } = await startPair();
    await signalWhile([server.pid, client.pid], async () => {
      expect(String(await exchange(plain, "x"))).toBe("x");
    });
    expect(listeningPorts(server.pid)).toEqual([portOf(wire)]);
    expect(listeningPorts(client.pid)).toEqual([portOf(plain)]);
    expect(server.stderr() + client.stderr()).toBe("");
  });

  it("has no effect on workers and the primary", async () => {
    const { plain, wire, server } = await startPair("--workers", "2");
    await until(() => childrenOf(server.pid).length === 2);
    expect(String(await exchange(plain, "x"))).toBe("x");
    const workers = childrenOf(server.pid);
    await signalWhile([server.pid, ...workers], async () => {
      expect(String(await exchange(plain, "x"))).toBe("x");
    });
    expect(childrenOf(server.pid)).toEqual(workers);
    for (const pid of [server.pid, ...workers]) {
      expect([[], [portOf(wire)]]).toContainEqual([...new Set(listeningPorts(pid))]);
    }
    for (const worker of workers) expect(blocksSignal(worker)).toBe(canBlock);
    expect(server.stderr()).toBe("");
  });

  it("has no effect on a daemon in the background", async () => {
    const echo = await startEcho();
    const source = await freeAddress();
    const pidFile = join(temporaryDirectory(), "pid");
    const args = ["-e", "-s", source.text, "-t", echo.address.text, "-k", keyFile(), "-p", pidFile];
    const parent = start([...SPIPED, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    expect(await once(parent.child, "exit")).toEqual([0, null]);
    const pid = Number(readFileSync(pidFile, "latin1"));
    cleanUp(() => void process.kill(pid, "SIGKILL"));
    await signalWhile([pid], async () => {
      await exchange(source, "x").catch(() => {});
    });
    expect(listeningPorts(pid)).toEqual([portOf(source)]);
    expect(blocksSignal(pid)).toBe(canBlock);
    expect(withoutFailureLines(parent.stderr())).toBe("");
  });

  it("has no effect on spipe", async () => {
    const { wire, key } = await startPair();
    const spipe = start([...commandOf("ours", "spipe"), "-t", wire.text, "-k", key]);
    let echoed = 0;
    const pass = async () => {
      spipe.child.stdin!.write("x");
      echoed += 1;
      await until(() => spipe.stdout().length === echoed);
    };
    await pass();
    await signalWhile([spipe.pid], pass);
    expect(listeningPorts(spipe.pid)).toEqual([]);
    expect(spipe.stderr()).toBe("");
  });
});

describe("the debugger", () => {
  /** Starts both programs with a module that Node loads before them. */
  async function startAfter(module: string, ...nodeOptions: string[]): Promise<Running[]> {
    const preload = join(temporaryDirectory(), "preload.cjs");
    writeFileSync(preload, module);
    const NODE_OPTIONS = [`--require=${preload}`, ...nodeOptions].join(" ");
    const [plain, wire, key] = [await freeAddress(), await freeAddress(), keyFile()];
    const echo = await startEcho();
    await startSpiped("ours", "-d", wire, echo.address, key);
    const env = { ...process.env, NODE_OPTIONS };
    const daemon = start([...SPIPED, "-F", "-e", "-s", plain.text, "-t", wire.text, "-k", key], { env });
    const spipe = start([...commandOf("ours", "spipe"), "-t", wire.text, "-k", key], { env });
    await untilListening(daemon, plain);
    spipe.child.stdin!.write("x");
    await until(() => spipe.stdout().length === 1);
    return [daemon, spipe];
  }

  it("is closed again if the signal came before the program's first line", async () => {
    const running = await startAfter(`
      process.debugPort = 0;
      process.kill(process.pid, "SIGUSR1");
      while (require("node:inspector").url() === undefined);
    `);
    for (const { stderr, pid } of running) {
      const [, port] = /^Debugger listening on ws:\/\/127\.0\.0\.1:(\d+)/.exec(stderr())!;
      await until(() => !listeningPorts(pid).includes(Number(port)));
    }
  });

  it("stays open with --inspect", async () => {
    const [daemon, spipe] = await startAfter("", "--inspect=127.0.0.1:0");
    await new Promise((passed) => setTimeout(passed, 1500));
    expect(listeningPorts(daemon!.pid)).toHaveLength(2);
    expect(listeningPorts(spipe!.pid)).toHaveLength(1);
  });
});
