/** Which processes warm up before they accept connections. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  cleanUp,
  commandOf,
  freeAddress,
  keyFile,
  start,
  temporaryDirectory,
  untilListening,
} from "../../support/programs.ts";
import { exchange, startEcho } from "../../support/servers.ts";

/** Returns the command of a daemon in front of an echo server, and a function that returns who has warmed up. */
async function observedDaemon(source: string, ...options: string[]) {
  const [node, program] = commandOf("ours", "spiped") as readonly [string, string];
  const directory = temporaryDirectory();
  const [preload, report] = [join(directory, "preload.cjs"), join(directory, "report")];
  // A process catches exceptions only while it warms up.
  writeFileSync(
    preload,
    `const { setUncaughtExceptionCaptureCallback: set } = process;
     process.setUncaughtExceptionCaptureCallback = (callback) => {
       if (callback !== null) require("node:fs").appendFileSync(${JSON.stringify(report)}, process.pid + "\\n");
       set.call(process, callback);
     };`,
  );
  const echo = await startEcho();
  const args = ["-F", "-d", "-s", source, "-t", echo.address.text, "-k", keyFile(), ...options];
  return {
    command: [node, "--require", preload, program, ...args],
    warmedUp: () => (existsSync(report) ? readFileSync(report, "utf8").trim().split("\n") : []).map(Number),
  };
}

describe("a daemon", () => {
  it("warms up before it listens, which it does not log", async () => {
    const source = await freeAddress();
    const { command, warmedUp } = await observedDaemon(source.text, "--log-level", "info");
    const daemon = start(command);
    await untilListening(daemon, source);
    expect(warmedUp()).toEqual([daemon.pid]);
    daemon.child.kill("SIGTERM");
    await daemon.ended;
    expect(daemon.stderr()).not.toMatch(/connection|warm/);
  });

  it("with --no-warm-up does not", async () => {
    const source = await freeAddress();
    const { command, warmedUp } = await observedDaemon(source.text, "--no-warm-up");
    await untilListening(start(command), source);
    expect(warmedUp()).toEqual([]);
  });

  it("with a socket of the service manager, where a connection may be waiting, does not", async () => {
    const source = await freeAddress();
    const server: Server & { _handle?: { fd: number } } = createServer();
    await new Promise<void>((listening) => void server.listen(source.connect, listening));
    cleanUp(() => void server.close());
    const { command, warmedUp } = await observedDaemon(source.text);
    const stdio = ["pipe", "pipe", "pipe", server._handle!.fd] as const;
    start(["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", ...command], { stdio: [...stdio] });
    server.close();
    // A client without the key gets the server's nonce.
    const nonce = await exchange(source, Buffer.alloc(321));
    expect(nonce).toHaveLength(32);
    expect(warmedUp()).toEqual([]);
  });

  it("with workers lets each of them do so", async () => {
    const source = await freeAddress();
    const { command, warmedUp } = await observedDaemon(source.text, "--workers", "2");
    const daemon = start(command);
    await untilListening(daemon, source);
    await expect.poll(() => new Set(warmedUp()).size, { timeout: 10_000 }).toBe(2);
    expect(warmedUp()).not.toContain(daemon.pid);
  });
});
