/** Actions of a daemon started as root that other local users must not be able to exploit. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  cleanUp,
  commandOf,
  freeAddress,
  isListening,
  keyFile,
  run,
  start,
  startSpiped,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, startEcho } from "../../support/servers.ts";

const SPIPED = commandOf("ours", "spiped");
const NOBODY = 65534;
/** A key file that only root and nobody can read; some tests run programs as the user nobody. */
const KEY = join(mkdtempSync(join(tmpdir(), "spiped-key-")), "key");
beforeAll(() => {
  writeFileSync(KEY, randomBytes(32), { mode: 0o600 });
  chmodSync(dirname(KEY), 0o755);
  if (process.getuid?.() === 0) chownSync(KEY, NOBODY, NOBODY);
});
afterAll(() => rmSync(dirname(KEY), { recursive: true }));
const serving = (source: string) => ["-e", "-s", source, "-t", "[127.0.0.1]:1", "-k", KEY];
const addressOf = (path: string) => ({ text: path, connect: { path } });

/** Runs spiped, which must exit with 1; returns its standard error. */
const fails = async (...args: string[]) => {
  const { status, stderr } = await run([...SPIPED, ...args]);
  expect(status).toBe(1);
  return stderr;
};

/** Creates a directory below a temporary one that other users can enter. */
function directoryOf(uid: number, mode = 0o755, parent = temporaryDirectory()): string {
  chmodSync(parent, statSync(parent).mode | 0o055);
  const directory = join(parent, "directory");
  mkdirSync(directory);
  chmodSync(directory, mode);
  chownSync(directory, uid, uid);
  return directory;
}

/** Starts spiped in the background; returns the parent's exit status and standard error. */
async function daemonize(args: readonly string[], pidFile: string, cwd = "/") {
  const parent = start([...SPIPED, ...args], { stdio: ["ignore", "pipe", "pipe"], cwd });
  const [status] = await once(parent.child, "exit");
  if (status === 0) daemonOf(pidFile);
  else await parent.ended;
  return { status, stderr: parent.stderr() };
}

const isRunning = (pid: number) => existsSync(`/proc/${pid}/status`);

/** Returns the pid in a pid file; that daemon is killed at the end of the test. */
function daemonOf(pidFile: string): number {
  const pid = Number(readFileSync(pidFile, "latin1"));
  cleanUp(() => {
    if (pid > 0 && isRunning(pid)) process.kill(pid, "SIGKILL");
  });
  return pid;
}

describeIfInstalled("root")("--socket-owner", () => {
  const isRoots = (path: string) => statSync(path).uid === 0;

  it("does not change the owner of a file with which the directory's owner has replaced the socket", async () => {
    const victim = join(temporaryDirectory(), "victim");
    writeFileSync(victim, "root's");
    for (let i = 0; i < 6; i += 1) {
      const directory = directoryOf(NOBODY);
      const path = join(directory, "socket");
      const swap = `until test -S ${path}; do :; done; mv ${path} ${path}.old; ln -s ${victim} ${path}`;
      const attacker = start(["sh", "-c", swap], { uid: NOBODY, gid: NOBODY });
      const daemon = start([...SPIPED, "-F", ...serving(path), "--socket-owner", "nobody"]);
      await Promise.race([daemon.ended, until(() => !isRoots(victim))]);
      expect(isRoots(victim)).toBe(true);
      expect(await daemon.ended).toMatchObject({ status: 1 });
      attacker.child.kill("SIGKILL");
    }
  });

  it.each([
    ["is owned by another user", () => directoryOf(NOBODY), /: DIR is owned by user 65534;/],
    ["is group-writable", () => directoryOf(0, 0o775), /: DIR is group-writable;/],
    ["is world-writable", () => directoryOf(0, 0o777), /: DIR is world-writable;/],
  ])("is rejected in a directory that %s", async (_which, make, reason) => {
    const directory = make();
    const path = join(directory, "socket");
    const stderr = await fails("-F", ...serving(path), "--socket-owner", "nobody");
    expect(stderr.replaceAll(directory, "DIR")).toMatch(reason);
    expect(stderr).toMatch(/^spiped: Error binding socket: other users can replace .*\/socket: .*\n$/);
    expect(stderr).toContain("; use a directory that only root can change\n");
    expect(existsSync(path)).toBe(false);
  });

  it.each([
    ["root's", () => directoryOf(0)],
    ["root's with the sticky bit", () => directoryOf(0, 0o1777)],
    [
      "behind a symbolic link of root's",
      () => {
        const directory = directoryOf(0);
        symlinkSync(directory, `${directory}.link`);
        return `${directory}.link`;
      },
    ],
  ])("works in a directory %s", async (_which, make) => {
    const path = join(make(), "socket");
    const args = [...SPIPED, "-F", ...serving(path), "--socket-owner", "nobody", "--socket-mode", "0600"];
    const daemon = start(args);
    await until(() => lstatSync(path, { throwIfNoEntry: false })?.uid === NOBODY);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    // The next daemon replaces the socket of a killed one.
    daemon.child.kill("SIGKILL");
    await daemon.ended;
    await untilListening(start(args), addressOf(path));
    await until(() => statSync(path).uid === NOBODY);
  });

  it("is not applied by a reload if other users can replace the socket", async () => {
    const directory = directoryOf(0);
    const path = join(directory, "socket");
    const config = join(temporaryDirectory(), "spiped.toml");
    const write = (more: string) =>
      writeFileSync(
        config,
        `[tunnels.a]\nencrypt = true\nsource = "${path}"\ntarget = "[127.0.0.1]:1"\nkey = "${KEY}"\n${more}`,
      );
    write("");
    const daemon = start([...SPIPED, "-F", "--config", config, "--log-level", "info"]);
    await untilListening(daemon, addressOf(path));
    const victim = join(temporaryDirectory(), "victim");
    writeFileSync(victim, "root's", { mode: 0o600 });
    chownSync(directory, NOBODY, NOBODY);
    rmSync(path);
    symlinkSync(victim, path);
    for (const [setting, count] of [
      ['socket-owner = "nobody"\n', 1],
      ['socket-mode = "0666"\n', 2],
    ] as const) {
      write(setting);
      process.kill(daemon.pid, "SIGHUP");
      await until(() => daemon.stderr().split("other users can replace").length > count);
    }
    expect(isRoots(victim)).toBe(true);
    expect(statSync(victim).mode & 0o777).toBe(0o600);
  });
});

describeIfInstalled("root")("a UNIX socket of root's", () => {
  it("may be in another user's directory, but not below one", async () => {
    const directory = directoryOf(NOBODY);
    const inside = join(directory, "socket");
    await untilListening(start([...SPIPED, "-F", ...serving(inside)]), addressOf(inside));

    const below = directoryOf(NOBODY, 0o755, directory);
    expect(await fails("-F", ...serving(join(below, "socket")))).toBe(
      `spiped: Error binding socket: other users can replace ${below}: ${directory} is owned by user 65534; use a directory that only root can change\n`,
    );
    const metrics = join(below, "metrics");
    const { text } = await freeAddress();
    expect(await fails("-F", ...serving(text), "--metrics", metrics)).toContain(
      `cannot serve metrics on ${metrics}: other users can replace ${below}: `,
    );
  });

  it("is subject to rules that do not apply to other users, who may bind wherever they can write", async () => {
    const directory = directoryOf(NOBODY);
    const inner = directoryOf(NOBODY, 0o775, directory);
    const path = join(inner, "socket");
    const { command, options } = asNobody(inner);
    await untilListening(start([...command, "-F", ...serving(path)], options), addressOf(path));
  });
});

/** Returns the command and options to run spiped as nobody, from a copy that this user can read. */
function asNobody(directory: string) {
  const [node, script] = SPIPED as unknown as [string, string];
  const copy = join(directory, "spiped.cjs");
  writeFileSync(copy, readFileSync(script), { mode: 0o755 });
  return { command: [node, copy], options: { uid: NOBODY, gid: NOBODY } };
}

describeIfInstalled(
  "root",
  "pgrep",
  "mkfifo",
)("the pid file", () => {
  it.each([
    ["symbolic", symlinkSync],
    ["hard", linkSync],
  ] as const)("is not written through a %s link", async (kind, link) => {
    const directory = directoryOf(NOBODY);
    const victim = join(directory, "..", "victim");
    writeFileSync(victim, "root's");
    const pidFile = join(directory, "pid");
    link(victim, pidFile);
    const { text } = await freeAddress();
    expect(await daemonize([...serving(text), "-p", pidFile], pidFile)).toEqual({
      status: 1,
      stderr: `spiped: fopen(${pidFile}): it is a ${kind} link; remove it, or name another file with -p\nspiped: Failed to daemonize\n`,
    });
    expect(readFileSync(victim, "latin1")).toBe("root's");
  });

  it("is not written below another user's directory", async () => {
    const directory = directoryOf(NOBODY);
    const below = directoryOf(NOBODY, 0o755, directory);
    const { text } = await freeAddress();
    for (const [path, cwd] of [
      [join(below, "pid"), "/"],
      ["directory/pid", directory],
    ] as const) {
      const pidFile = join(below, "pid");
      expect(await daemonize([...serving(text), "-p", path], pidFile, cwd)).toEqual({
        status: 1,
        stderr: expect.stringMatching(
          /^spiped: fopen\(.*\): other users can replace .*: .* is owned by user 65534; .*\nspiped: Failed to daemonize\n$/,
        ),
      });
    }
  });

  it("may be in the current directory, root's or a sticky one, and replaces an old pid file", async () => {
    const parent = directoryOf(0);
    symlinkSync(parent, join(parent, "link"));
    for (const [path, cwd] of [
      ["pid", directoryOf(NOBODY)],
      [join(directoryOf(NOBODY), "pid"), "/"],
      ["../directory/pid", directoryOf(0)],
      [join(directoryOf(0, 0o1777), "pid"), "/"],
      [join(parent, "link", "pid"), "/"],
    ] as const) {
      const file = path.startsWith("/") ? path : join(cwd, path);
      writeFileSync(file, "1234567890");
      const { text } = await freeAddress();
      expect(await daemonize([...serving(text), "-p", path], file, cwd)).toEqual({ status: 0, stderr: "" });
      const pid = daemonOf(file);
      expect(isRunning(pid)).toBe(true);
      process.kill(pid, "SIGTERM");
      await until(() => !existsSync(file));
    }
  });

  it("may be /dev/null", async () => {
    const source = await freeAddress();
    const pidFile = "/dev/null";
    const title = ["spiped", ...serving(source.text), "-p", pidFile].join(" ");
    expect(await daemonize([...serving(source.text), "-p", pidFile], pidFile)).toMatchObject({ status: 0 });
    const { stdout } = await run(["pgrep", "-f", "-x", title.replaceAll(/[[\]]/g, "\\$&")]);
    const pid = Number(stdout.toString());
    expect(pid).toBeGreaterThan(1);
    process.kill(pid, "SIGTERM");
    await until(() => !isRunning(pid));
    expect(lstatSync("/dev/null").isCharacterDevice()).toBe(true);
  });

  it("is neither opened nor removed at exit if another user has replaced it with a named pipe or a link", async () => {
    const directory = directoryOf(NOBODY);
    const pidFile = join(directory, "pid");
    for (const replace of [() => run(["mkfifo", pidFile]), async () => symlinkSync("/etc/passwd", pidFile)]) {
      const { text } = await freeAddress();
      expect(await daemonize([...serving(text), "-p", pidFile], pidFile)).toMatchObject({ status: 0 });
      const pid = daemonOf(pidFile);
      rmSync(pidFile);
      await replace();
      process.kill(pid, "SIGTERM");
      await until(() => !isRunning(pid));
      rmSync(pidFile);
    }
  });
});

describeIfInstalled("root")("-u", () => {
  it.each(["nobody", "nobody:nogroup", "65534", ":nogroup"])("%s is accepted from nobody", async (spec) => {
    const directory = directoryOf(NOBODY);
    const { command, options } = asNobody(directory);
    const echo = await startEcho();
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    const key = keyFile();
    await startSpiped("ours", "-d", wire, echo.address, key);
    const own = join(directory, "key");
    writeFileSync(own, readFileSync(key), { mode: 0o644 });
    const args = ["-F", "-e", "-s", plain.text, "-t", wire.text, "-k", own, "-u", spec];
    await untilListening(start([...command, ...args], options), plain);
    expect(String(await exchange(plain, "hello"))).toBe("hello");
  });
});

describeIfInstalled(
  "root",
  "getent",
  "logger",
  "systemd-notify",
)("helper programs", () => {
  it("are not searched for in PATH", async () => {
    const directory = temporaryDirectory();
    const traces = join(directory, "traces");
    for (const name of ["getent", "logger", "systemd-notify"])
      writeFileSync(join(directory, name), `#!/bin/sh\necho ${name} >> ${traces}\n`, { mode: 0o755 });
    const echo = await startEcho();
    const [source, user] = [await freeAddress(), "nobody"];
    const args = ["-F", "-e", "-s", source.text, "-t", echo.address.text, "-k", KEY];
    const daemon = start([...SPIPED, ...args, "-u", user, "--syslog", "-n", "1"], {
      env: { ...process.env, PATH: directory, NOTIFY_SOCKET: join(directory, "nowhere") },
    });
    await untilListening(daemon, source);
    // Reaching the limit is logged, through logger.
    await exchange(source, "x").catch(() => {});
    await until(() => daemon.stderr().includes("Maximum number of connections"));
    await until(() => daemon.stderr().includes("systemd-notify"));
    process.kill(daemon.pid, "SIGTERM");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
    expect(existsSync(traces)).toBe(false);
  });
});

describe("a variable that marks a daemonized child", () => {
  it.each([
    { SPIPED_READY_FD: "99" },
    { SPIPED_READY_FD: "3" },
    { SPIPED_PARENT_PID: "99" },
    { SPIPED_PARENT_PID: "" },
    { SPIPED_PARENT_PID: String(process.pid) },
  ])("has no effect if another program has set it: %j", async (variables) => {
    const source = await freeAddress();
    const pidFile = join(temporaryDirectory(), "pid");
    const parent = start([...SPIPED, ...serving(source.text), "-p", pidFile], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...variables },
    });
    expect(await once(parent.child, "exit")).toEqual([0, null]);
    const pid = daemonOf(pidFile);
    expect(pid).not.toBe(parent.pid);
    expect(isListening(source)).toBe(true);
    process.kill(pid, "SIGTERM");
    await until(() => !isRunning(pid));
    expect(parent.stderr()).toBe("");
  });
});
