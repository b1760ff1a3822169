/** The daemon as a process: process ID file, signals, privileges, sockets and logs. */

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withoutFailureLines } from "../../support/log-lines.ts";
import {
  cleanUp,
  commandOf,
  connectTo,
  freeAddress,
  isListening,
  keyFile,
  type Running,
  run,
  start,
  startSpiped,
  type TestAddress,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, readAll, startEcho } from "../../support/servers.ts";

const SPIPED = commandOf("ours", "spiped");
const running = (pid: number) => {
  try {
    return !/^State:\sZ/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
};
const statusOf = (pid: number, field: string) =>
  new RegExp(`^${field}:[ \\t]*(.*)$`, "m")
    .exec(readFileSync(`/proc/${pid}/status`, "latin1"))![1]!
    .trim()
    .split(/\s+/);

/** Daemonizes; returns the parent's exit status and the pid of the daemon, which is killed at the end of the test. */
async function daemonized(args: readonly string[], pidFile: string) {
  const parent = start([...SPIPED, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const [status] = await once(parent.child, "exit");
  const pid = Number(readFileSync(pidFile, "latin1"));
  // Runs before `start` waits for the streams to close, which the daemon has inherited.
  cleanUp(async () => {
    if (running(pid)) process.kill(pid, "SIGKILL");
    await until(() => !running(pid));
  });
  return { status: status as number, pid, parent };
}

async function ends(daemon: Running, signal: NodeJS.Signals) {
  process.kill(daemon.pid, signal);
  return daemon.ended;
}

describe("a daemon", () => {
  it("serves once its parent has exited with 0, with a pid file, in its own session", async () => {
    const echo = await startEcho();
    const source = await freeAddress();
    const pidFile = join(temporaryDirectory(), "pid");
    const key = keyFile();
    const args = ["-d", "-s", source.text, "-t", echo.address.text, "-k", key, "-p", pidFile];
    const { status, pid } = await daemonized(args, pidFile);

    expect(status).toBe(0);
    expect(isListening(source)).toBe(true);
    expect(readFileSync(pidFile, "latin1")).toBe(String(pid));
    expect(readFileSync(`/proc/${pid}/stat`, "latin1").replace(/.*\) /, "").split(" ")[3]).toBe(String(pid));
    expect(readFileSync(`/proc/${pid}/comm`, "latin1")).toBe("spiped\n");
    expect(readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ").trim()).toBe(
      `spiped ${args.join(" ")}`,
    );
    expect(readFileSync(`/proc/${pid}/environ`, "latin1")).not.toContain(readFileSync(key, "latin1"));

    process.kill(pid, "SIGTERM");
    await until(() => !running(pid));
    expect(existsSync(pidFile)).toBe(false);
  });

  it("names the pid file after the source as given", async () => {
    const directory = temporaryDirectory();
    const source = await freeAddress();
    const pidFile = join(directory, `${source.text}.pid`);
    const parent = start([...SPIPED, "-d", "-s", source.text, "-t", "[127.0.0.1]:1", "-k", keyFile()], {
      cwd: directory,
      stdio: ["ignore", "pipe", "pipe"],
    });
    await once(parent.child, "exit");
    const pid = Number(readFileSync(pidFile, "latin1"));
    process.kill(pid, "SIGTERM");
    await until(() => !running(pid));
  });

  it("does not remove a pid file that another process has overwritten", async () => {
    const source = await freeAddress();
    const pidFile = join(temporaryDirectory(), "pid");
    const { pid } = await daemonized(
      ["-d", "-s", source.text, "-t", "[127.0.0.1]:1", "-k", keyFile(), "-p", pidFile],
      pidFile,
    );
    writeFileSync(pidFile, "1");
    process.kill(pid, "SIGTERM");
    await until(() => !running(pid));
    expect(readFileSync(pidFile, "latin1")).toBe("1");
  });

  it("reads the key from its standard input", async () => {
    const source = await freeAddress();
    const pidFile = join(temporaryDirectory(), "pid");
    const parent = start([
      ...SPIPED,
      "-d",
      "-s",
      source.text,
      "-t",
      "[127.0.0.1]:1",
      "-k",
      "-",
      "-p",
      pidFile,
    ]);
    parent.child.stdin!.end("the key");
    const [status] = await once(parent.child, "exit");
    expect(status).toBe(0);
    process.kill(Number(readFileSync(pidFile, "latin1")), "SIGTERM");
  });

  it("that fails during startup makes its parent report the error and exit with 1", async () => {
    const echo = await startEcho();
    const common = ["-t", "[127.0.0.1]:1", "-k", keyFile(), "-p", join(temporaryDirectory(), "pid")];
    const inUse = await run([...SPIPED, "-d", "-s", echo.address.text, ...common]);
    expect(inUse).toMatchObject({
      status: 1,
      stderr: `spiped: Error binding socket: Address already in use\nspiped: ${echo.address.text} is in use: stop the process that ss -ltnp shows, or choose another port\n`,
    });
    const source = await freeAddress();
    const noUser = await run([...SPIPED, "-d", "-s", source.text, ...common, "-u", "nosuchuser"]);
    expect(noUser).toMatchObject({
      status: 1,
      stderr: "spiped: No such user: nosuchuser\nspiped: Failed to drop privileges\n",
    });
    expect(isListening(source)).toBe(false);
  });

  it("with -D daemonizes immediately, writes a pid file, and retries until it is terminated", async () => {
    const pidFile = join(temporaryDirectory(), "pid");
    const source = await freeAddress();
    const args = ["-D", "-d", "-s", source.text, "-t", "nosuch.invalid:1", "-k", keyFile(), "-p", pidFile];
    const { status, pid, parent } = await daemonized(args, pidFile);
    expect(status).toBe(0);
    await until(() => parent.stderr().split("Error looking up nosuch.invalid").length > 2);
    process.kill(pid, "SIGHUP");
    await until(() => parent.stderr().split("Error looking up nosuch.invalid").length > 3);
    process.kill(pid, "SIGTERM");
    await until(() => !running(pid));
    expect(existsSync(pidFile)).toBe(false);
  });

  it("with -D -F also retries an address that it can't parse", async () => {
    const args = ["-D", "-F", "-d", "-s", "", "-t", "nowhere", "-k", keyFile()];
    const daemon = start([...SPIPED, ...args]);
    await until(() => daemon.stderr().split("Empty socket address").length > 2);
    process.kill(daemon.pid, "SIGTERM");
    await daemon.ended;
  });

  it("writes no pid file in the foreground", async () => {
    const source = await freeAddress();
    const pidFile = join(temporaryDirectory(), "no", "pid");
    const daemon = await startSpiped("ours", "-d", source, "[127.0.0.1]:1", keyFile(), "-p", pidFile);
    expect(await ends(daemon, "SIGTERM")).toEqual({ status: 0, signal: null });
  });

  it("survives the reader of its standard error", async () => {
    const echo = await startEcho();
    const source = await freeAddress();
    const daemon = await startSpiped("ours", "-e", source, echo.address, keyFile(), "-n", "1");
    daemon.child.stderr!.destroy();
    for (let i = 0; i < 3; i += 1) await connectTo(source);
    expect(await ends(daemon, "SIGTERM")).toMatchObject({ status: 0 });
  });
});

describe("termination", () => {
  async function pair(...options: string[]) {
    const echo = await startEcho();
    const key = keyFile();
    const middle = await freeAddress();
    const source = await freeAddress();
    const server = await startSpiped("ours", "-d", middle, echo.address, key);
    const client = await startSpiped("ours", "-e", source, middle, key, ...options);
    return { source, middle, server, client };
  }

  it.each(["SIGTERM", "SIGINT"] as const)(
    "%s drains: the listener closes, and open connections continue until they end",
    async (signal) => {
      const { source, middle, client, server } = await pair();
      const socket = await connectTo(source);
      socket.write("before ");
      await once(socket, "readable");
      process.kill(client.pid, signal);
      process.kill(server.pid, signal);
      await until(() => !isListening(source) && !isListening(middle));
      socket.end("after");
      expect((await readAll(socket)).toString()).toBe("before after");
      expect(await client.ended).toEqual({ status: 0, signal: null });
      expect(await server.ended).toEqual({ status: 0, signal: null });
    },
  );

  it("serves the connections that were in the kernel's accept queue at the signal", async () => {
    const { source, client } = await pair();
    process.kill(client.pid, "SIGSTOP");
    const sockets = await Promise.all(Array.from({ length: 30 }, () => connectTo(source)));
    process.kill(client.pid, "SIGTERM");
    process.kill(client.pid, "SIGCONT");
    const answers = await Promise.all(
      sockets.map((socket) => {
        socket.end("x");
        return readAll(socket);
      }),
    );
    expect(answers.map(String)).toEqual(sockets.map(() => "x"));
    expect(await client.ended).toEqual({ status: 0, signal: null });
  });

  it.each([
    ["in one process", []],
    ["in two workers", ["--workers", "2"]],
  ])("--drain-timeout resets connections %s that stay open", async (_, options) => {
    const { source, client, server } = await pair(...options, "--drain-timeout", "0.2");
    const socket = await connectTo(source);
    socket.write("x");
    await once(socket, "readable");
    const failure = once(socket.resume(), "close").catch((error: NodeJS.ErrnoException) => error.code);
    process.kill(client.pid, "SIGTERM");
    expect(await client.ended).toEqual({ status: 0, signal: null });
    expect(client.stderr()).toContain("spiped: drain timeout (0.2 s): closing the remaining connections\n");
    expect(await failure).toBe("ECONNRESET");
    await until(() => server.stderr().includes("failed: peer: reset"));
  });

  it.each(["SIGTERM", "SIGINT"] as const)("a second %s kills the process", async (signal) => {
    const { source, client } = await pair();
    const socket = await connectTo(source);
    socket.write("x");
    await once(socket, "readable");
    process.kill(client.pid, signal);
    await until(() => !isListening(source));
    expect(await ends(client, signal)).toEqual({ status: null, signal });
  });
});

describe("a UNIX socket", () => {
  it("is removed at exit, replaced if stale, and not replaced if it is in use", async () => {
    const source = await freeAddress("UNIX");
    const path = source.text;
    const args = [...SPIPED, "-F", "-d", "-s", path, "-t", "[127.0.0.1]:1", "-k", keyFile()];

    const first = await startSpiped("ours", "-d", source, "[127.0.0.1]:1", keyFile());
    expect(await run(args)).toMatchObject({
      status: 1,
      stderr: `spiped: Error binding socket: Address already in use\nspiped: ${path} is in use by a running process, or is not a socket: stop the process, or choose another path\n`,
    });
    await ends(first, "SIGKILL");
    expect(existsSync(path)).toBe(true);

    const second = start(args);
    let inode = 0n;
    await until(() => {
      const found = statSync(path, { bigint: true, throwIfNoEntry: false });
      if (found !== undefined) inode = found.ino;
      return readFileSync("/proc/net/unix", "latin1").includes(path);
    });
    expect(inode).toBeGreaterThan(0n);
    await ends(second, "SIGTERM");
    expect(existsSync(path)).toBe(false);
  });

  it("does not replace a file that is not a socket", async () => {
    const path = join(temporaryDirectory(), "file");
    writeFileSync(path, "precious");
    const { status, stderr } = await run([
      ...SPIPED,
      "-F",
      "-d",
      "-s",
      path,
      "-t",
      "[127.0.0.1]:1",
      "-k",
      keyFile(),
    ]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: `spiped: Error binding socket: Address already in use\nspiped: ${path} is in use by a running process, or is not a socket: stop the process, or choose another path\n`,
    });
    expect(readFileSync(path, "utf8")).toBe("precious");
  });
});

describeIfInstalled(
  "root",
  "getent",
  "spiped",
)("-u", () => {
  const ids = (user: string) => {
    const [, , uid, gid] = readFileSync("/etc/passwd", "utf8")
      .split("\n")
      .find((line) => line.startsWith(`${user}:`))!
      .split(":");
    return { uid: uid!, gid: gid! };
  };
  const four = (id: string) => [id, id, id, id];

  it.each([
    ["nobody", ids("nobody").uid, ids("nobody").gid, [ids("nobody").gid]],
    ["nobody:daemon", ids("nobody").uid, ids("daemon").gid, []],
    [":daemon", "0", ids("daemon").gid, []],
    ["65000:65001", "65000", "65001", []],
  ])("%s drops all other user and group IDs", async (spec, uid, gid, groups) => {
    const echo = await startEcho();
    const source = await freeAddress();
    const key = keyFile();
    const daemon = await startSpiped("ours", "-d", source, echo.address, key, "-u", spec);
    await until(() => statusOf(daemon.pid, "Gid")[0] === gid && statusOf(daemon.pid, "Uid")[0] === uid);
    expect(statusOf(daemon.pid, "Uid")).toEqual(four(uid));
    expect(statusOf(daemon.pid, "Gid")).toEqual(four(gid));
    expect(statusOf(daemon.pid, "Groups").filter(Boolean)).toEqual(groups);
    for (const thread of readdirSync(`/proc/${daemon.pid}/task`)) {
      expect(statusOf(Number(thread), "Uid")).toEqual(four(uid));
    }
    const { stdout } = await run([...commandOf("ours", "spipe"), "-t", source.text, "-k", key], "hello");
    expect(stdout.toString()).toBe("hello");
  });

  it("rejects a numeric user without a primary group unless a group is given", async () => {
    const source = await freeAddress();
    const { status, stderr } = await run([
      ...SPIPED,
      "-F",
      "-d",
      "-s",
      source.text,
      "-t",
      "[127.0.0.1]:1",
      "-k",
      keyFile(),
      "-u",
      "65000",
    ]);
    expect(status).toBe(1);
    expect(stderr).toContain("give one with -u 65000:GROUP");
    expect(stderr).toContain("spiped: Failed to drop privileges");
  });

  it("fails without root, with Tarsnap's message", async () => {
    const source = await freeAddress();
    const directory = temporaryDirectory();
    chmodSync(directory, 0o777);
    const key = join(directory, "key");
    writeFileSync(key, randomBytes(32), { mode: 0o600 });
    chownSync(key, 65534, 65534);
    const args = ["-F", "-d", "-s", source.text, "-t", "[127.0.0.1]:1", "-k", key, "-u", "daemon"];
    const [node, script] = SPIPED as unknown as [string, string];
    const own = join(directory, "spiped.cjs");
    writeFileSync(own, readFileSync(script), { mode: 0o755 });
    const our = await run([node, own, ...args], "", { uid: 65534, gid: 65534 });
    const its = await run(["spiped", ...args], "", { uid: 65534, gid: 65534 });
    expect(our.stderr).toBe("spiped: Failed to drop privileges: Operation not permitted\n");
    expect([our.status, its.status]).toEqual([1, 1]);
  });
});

describeIfInstalled(
  "logger",
  "socat",
  "root",
  "unshare",
)("--syslog", () => {
  /** Starts a program in a mount namespace with the test's /dev/log; `messages` returns what that receives. */
  async function withDevLog(command: readonly string[]) {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, "run"));
    const log = join(directory, "log");
    const receiver = start(["socat", "-u", `UNIX-RECV:${log}`, "STDOUT"]);
    await until(() => existsSync(log));
    const script = 'touch /dev/log 2>/dev/null; mount --bind "$0" /dev/log && exec "$@"';
    const created = !existsSync("/dev/log");
    cleanUp(() => {
      if (created) rmSync("/dev/log", { force: true });
    });
    const daemon = start(["unshare", "-m", "sh", "-c", script, log, ...command]);
    return { daemon, messages: () => receiver.stdout().toString() };
  }

  const atLimit = async (source: TestAddress, messages: () => string) => {
    await connectTo(source);
    await until(() => messages().includes("reached"));
  };
  const withoutTime = (messages: string) =>
    messages.replace(/> ?\w{3} [\d ]\d [\d:]{8} (\S+ (?=spiped))?/, "> ");

  it("sends the same message as Tarsnap's spiped, and with -F logs to standard error as well", async () => {
    const echo = await startEcho();
    const source = await freeAddress();
    const args = ["-e", "-s", source.text, "-t", echo.address.text, "-k", keyFile(), "-n", "1", "--syslog"];
    const { daemon, messages } = await withDevLog([...SPIPED, "-F", ...args]);
    await untilListening(daemon, source);
    await atLimit(source, messages);
    expect(withoutTime(messages())).toMatch(/^<12> ?spiped: Maximum number of connections \(1\) reached/);
    expect(withoutFailureLines(daemon.stderr())).toBe("spiped: Maximum number of connections (1) reached\n");
    await ends(daemon, "SIGTERM");
  });
});

describe("under a journal", () => {
  it("lines on standard error have a priority prefix", async () => {
    // JOURNAL_STREAM is the device and inode of the journal's stream; here, of a pipe.
    const source = await freeAddress();
    const script = 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$@"';
    const args = [...SPIPED, "-F", "-D", "-d", "-s", source.text, "-t", "nosuch.invalid:1", "-k", keyFile()];
    const daemon = start(["sh", "-c", script, "sh", ...args]);
    await until(() => daemon.stderr().includes("nosuch"));
    expect(daemon.stderr()).toMatch(/^<4>spiped: Error looking up nosuch\.invalid/);
  });
});

describe("many failures", () => {
  it("of connections and DNS lookups do not terminate the daemon", async () => {
    const source = await freeAddress();
    const refused = createServer().listen(0, "127.0.0.1");
    await once(refused, "listening");
    const { port } = refused.address() as { port: number };
    refused.close();
    const daemon = await startSpiped("ours", "-e", source, `[127.0.0.1]:${port}`, keyFile(), "-r", "0.01");
    for (let i = 0; i < 20; i += 1) await exchange(source, "x").catch(() => {});
    expect(running(daemon.pid)).toBe(true);
    expect(await ends(daemon, "SIGTERM")).toEqual({ status: 0, signal: null });
    expect(withoutFailureLines(daemon.stderr())).toBe("");
  });
});
