/** SIGHUP during startup, reload and drain, and state that must not outlive a reload. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, expect, it } from "vitest";
import {
  commandOf,
  connectTo,
  freeAddress,
  isListening,
  keyFile,
  type Running,
  start,
  startSpiped,
  type TestAddress,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, readAll, startEcho } from "../../support/servers.ts";
import { withProgram } from "../../support/system-programs.ts";

const SPIPED = commandOf("ours", "spiped");
const times = (daemon: Running, text: string) => daemon.stderr().split(text).length - 1;

/** The key of both sides unless a test names another. */
let sharedKey: string;
beforeEach(() => {
  sharedKey = keyFile();
});

/** Returns the configuration of one tunnel. */
const tunnel = (
  name: string,
  source: TestAddress,
  target: TestAddress,
  { mode = "encrypt", key = sharedKey, more = "" } = {},
) =>
  `[tunnels.${name}]\n${mode} = true\nsource = "${source.text}"\ntarget = "${target.text}"\nkey = "${key}"\n${more}\n`;

async function startWith(text: string, ...options: string[]) {
  const file = join(temporaryDirectory(), "spiped.toml");
  writeFileSync(file, text);
  const daemon = start([...SPIPED, "-F", "--config", file, "--log-level", "info", ...options]);
  return {
    daemon,
    reload: (next: string) => {
      const before = times(daemon, "reloaded");
      writeFileSync(file, next);
      process.kill(daemon.pid, "SIGHUP");
      return until(() => times(daemon, "reloaded") > before);
    },
    write: (next: string) => writeFileSync(file, next),
  };
}

/** Starts Tarsnap's `spiped -d` in front of an echo server; returns its address. */
async function startRemote() {
  const echo = await startEcho();
  const remote = await freeAddress();
  await startSpiped("c", "-d", remote, echo.address, sharedKey);
  return remote;
}

async function held(address: TestAddress) {
  const socket = await connectTo(address);
  socket.write("held ");
  await once(socket, "readable");
  return socket;
}

describeIfInstalled("spiped")("a reload", () => {
  it.each([[], ["--workers", "2"]])(
    "that removes a tunnel drains its connections, also if the daemon is terminated then (%s %s)",
    async (...options) => {
      const remote = await startRemote();
      const [a, b] = [await freeAddress(), await freeAddress()];
      const { daemon, reload } = await startWith(tunnel("a", a, remote) + tunnel("b", b, remote), ...options);
      await untilListening(daemon, b);
      const socket = await held(b);
      await reload(tunnel("a", a, remote));
      await until(() => !isListening(b));
      process.kill(daemon.pid, "SIGTERM");
      await until(() => !isListening(a));
      socket.end("to the end");
      expect(String(await readAll(socket))).toBe("held to the end");
      expect(await daemon.ended).toEqual({ status: 0, signal: null });
    },
  );

  it("that is requested during startup happens after it", async () => {
    const remote = await startRemote();
    const a = await freeAddress();
    const key = join(temporaryDirectory(), "key");
    execFileSync("mkfifo", ["-m", "600", key]);
    const { daemon } = await startWith(tunnel("a", a, remote, { key }));
    // open() blocks until the daemon opens the FIFO for reading.
    const fifo = await open(key, "w");
    process.kill(daemon.pid, "SIGHUP");
    renameSync(keyFile(), key);
    await fifo.writeFile(randomBytes(32));
    await fifo.close();
    await untilListening(daemon, a);
    await until(() => times(daemon, "reloaded") === 1);
    expect(isListening(a)).toBe(true);
  });

  it("that takes long does not override a later one", async () => {
    const remote = await startRemote();
    const [a, b, c] = [await freeAddress(), await freeAddress(), await freeAddress()];
    const { daemon, write } = await startWith(tunnel("a", a, remote));
    await untilListening(daemon, a);
    const key = join(temporaryDirectory(), "fifo");
    execFileSync("mkfifo", ["-m", "600", key]);
    write(tunnel("b", b, remote, { key }));
    process.kill(daemon.pid, "SIGHUP");
    // open() blocks until the daemon opens the FIFO, whose key it then waits for.
    const fifo = await open(key, "w");
    write(tunnel("c", c, remote));
    process.kill(daemon.pid, "SIGHUP");
    // A reload that did not wait would be done by now.
    await new Promise((done) => setTimeout(done, 300));
    expect(times(daemon, "reloaded")).toBe(0);
    await fifo.writeFile(randomBytes(32));
    await fifo.close();
    await until(() => times(daemon, "reloaded") === 2);
    expect([a, b, c].map(isListening)).toEqual([false, false, true]);
    expect(String(await exchange(c, "the last word"))).toBe("the last word");
  });

  it("opens no listener during a drain", async () => {
    const remote = await startRemote();
    const [a, b] = [await freeAddress(), await freeAddress()];
    const { daemon, write } = await startWith(tunnel("a", a, remote));
    await untilListening(daemon, a);
    const socket = await held(a);
    process.kill(daemon.pid, "SIGTERM");
    await until(() => !isListening(a));
    write(tunnel("b", b, remote));
    process.kill(daemon.pid, "SIGHUP");
    await new Promise((done) => setTimeout(done, 300));
    expect(isListening(b)).toBe(false);
    socket.end();
    expect(String(await readAll(socket))).toBe("held ");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });

  it("changes the permissions of a socket, and the names and the order of tunnels, without closing a listener", async () => {
    const remote = await startRemote();
    const [a, b] = [await freeAddress("UNIX"), await freeAddress()];
    const { daemon, reload } = await startWith(
      tunnel("one", a, remote, { more: 'socket-mode = "0600"' }) + tunnel("two", b, remote),
    );
    await untilListening(daemon, a);
    await untilListening(daemon, b);
    const { ino, mode } = statSync(a.text);
    expect(mode & 0o777).toBe(0o600);
    const socket = await held(a);
    await reload(tunnel("one", b, remote) + tunnel("two", a, remote, { more: 'socket-mode = "0660"' }));
    expect(statSync(a.text).ino).toBe(ino);
    expect(statSync(a.text).mode & 0o777).toBe(0o660);
    expect(String(await exchange(a, "as two"))).toBe("as two");
    expect(String(await exchange(b, "as one"))).toBe("as one");
    socket.end("to the end");
    expect(String(await readAll(socket))).toBe("held to the end");
  });

  it("changes a tunnel's direction, and workers are still replaced afterwards", async () => {
    const echo = await startEcho();
    const remote = await startRemote();
    const source = await freeAddress();
    const { daemon, reload } = await startWith(
      tunnel("t", source, echo.address, { mode: "decrypt" }),
      "--workers",
      "2",
    );
    await untilListening(daemon, source);
    await reload(tunnel("t", source, remote, { mode: "encrypt" }));
    expect(String(await exchange(source, "the other way"))).toBe("the other way");
    const children = () =>
      readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, "utf8").trim().split(" ").map(Number);
    for (const pid of children()) process.kill(pid, "SIGKILL");
    await until(() => times(daemon, "its connections were lost; restarting") === 2);
    expect(String(await exchange(source, "still there"))).toBe("still there");
  });

  it("sets no timer that is too long for Node", async () => {
    const remote = await startRemote();
    const a = await freeAddress();
    const key = keyFile();
    const { daemon, reload } = await startWith(tunnel("a", a, remote, { key, more: "timeout = 2000000" }));
    await untilListening(daemon, a);
    writeFileSync(key, "another");
    await reload(tunnel("a", a, remote, { key, more: "timeout = 2000000" }));
    expect(daemon.stderr()).not.toContain("Warning");
  });
});

describeIfInstalled(
  "spiped",
  "root",
  "unshare",
  "logger",
)("the end of a daemon", () => {
  it("does not wait for a logger that hangs", async () => {
    const remote = await startRemote();
    const source = await freeAddress();
    const args = ["-F", "-e", "-s", source.text, "-t", remote.text, "-k", sharedKey, "-n", "1", "--syslog"];
    const daemon = start(withProgram("logger", "exec sleep 1000", [...SPIPED, ...args]));
    await untilListening(daemon, source);
    expect(String(await exchange(source, "x"))).toBe("x");
    await until(() => daemon.stderr().includes("Maximum number of connections (1) reached"));
    process.kill(daemon.pid, "SIGTERM");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });
});

describeIfInstalled("spiped")("the end of a daemon", () => {
  it.each(["text", "json"])("does not come because its log can't be written (%s)", async (format) => {
    const remote = await startRemote();
    const source = await freeAddress();
    const args = ["-F", "-e", "-s", source.text, "-t", remote.text, "-k", sharedKey, "--log-level", "info"];
    expect(existsSync("/dev/full")).toBe(true);
    const daemon = start([
      "bash",
      "-c",
      'exec "$@" 2> /dev/full',
      "-",
      ...SPIPED,
      ...args,
      "--log-format",
      format,
    ]);
    await untilListening(daemon, source);
    for (let i = 0; i < 3; i += 1) expect(String(await exchange(source, "x"))).toBe("x");
    process.kill(daemon.pid, "SIGTERM");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });
});
