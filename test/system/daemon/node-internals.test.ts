/** The daemon uses undocumented features of Node; without them it still works, or reports what does not. */
import { writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  cleanUp,
  commandOf,
  type Family,
  freeAddress,
  keyFile,
  run,
  start,
  startSpiped,
  type TestAddress,
  temporaryDirectory,
  untilListening,
} from "../../support/programs.ts";
import { exchange, startEcho } from "../../support/servers.ts";

const CANNOT_BIND = "delete require('node:net')._createServerHandle;";
const BINDS_NOTHING = "require('node:net')._createServerHandle = () => ({});";
const CANNOT_SEND = `
  const processes = require("node:child_process");
  const { fork } = processes;
  processes.fork = (...args) => {
    const child = fork(...args);
    const { send } = child;
    child.send = (message, handle, callback) => {
      if (handle !== undefined) throw new TypeError("This handle type cannot be sent");
      return send.call(child, message, callback);
    };
    return child;
  };`;
const CANNOT_RECEIVE = `
  const { emit } = process;
  process.emit = (name, ...args) => emit.call(process, name, ...(name === "message" ? args.slice(0, 1) : args));`;

/** Returns the command of a daemon with `code` run before it, and its source. */
async function daemonWith(code: string, source: TestAddress, ...options: string[]) {
  const [node, file] = commandOf("ours", "spiped");
  const preload = join(temporaryDirectory(), "preload.cjs");
  writeFileSync(preload, code);
  const key = keyFile();
  const wire = await freeAddress();
  const echo = await startEcho();
  await startSpiped("ours", "-d", wire, echo.address, key);
  const args = ["-F", "-e", "-s", source.text, "-t", wire.text, "-k", key, ...options];
  return [node, "--require", preload, file!, ...args];
}

describe.each([
  ["cannot bind without listening", CANNOT_BIND],
  ["binds in another way", BINDS_NOTHING],
])("if Node %s", (_failure, code) => {
  it.each<Family>(["IPv4", "UNIX"])("a daemon serves an %s address", async (family) => {
    const source = await freeAddress(family);
    await untilListening(start(await daemonWith(code, source)), source);
    expect((await exchange(source, "hello")).toString()).toBe("hello");
  });

  it("a daemon serves a socket of the service manager", async () => {
    const source = await freeAddress();
    const server: Server & { _handle?: { fd: number } } = createServer();
    await new Promise<void>((listening) => void server.listen(source.connect, listening));
    cleanUp(() => void server.close());
    const command = await daemonWith(code, source);
    const script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"';
    const stdio = ["pipe", "pipe", "pipe", server._handle!.fd] as const;
    const daemon = start(["sh", "-c", script, "sh", ...command], { stdio: [...stdio] });
    // Connections wait in the socket's queue until the daemon accepts them.
    server.close();
    expect((await exchange(source, "hello")).toString()).toBe("hello");
    expect(daemon.stderr()).toBe("");
  });
});

it.each([
  ["bind without listening", CANNOT_BIND],
  ["send a bound socket", CANNOT_SEND],
  ["receive a bound socket", CANNOT_RECEIVE],
])("workers are not available if Node cannot %s", async (_what, code) => {
  const { status, stderr } = await run(await daemonWith(code, await freeAddress(), "--workers", "2"));
  expect(status).toBe(1);
  expect(stderr).toContain(
    "spiped: Error binding socket: this version of Node cannot share a socket among processes\n",
  );
});
