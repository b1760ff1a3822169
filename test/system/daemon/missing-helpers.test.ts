/** Missing or failing helper programs and unusual environments: the daemon reports them and keeps running. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  commandOf,
  freeAddress,
  keyFile,
  type Running,
  run,
  start,
  startSpiped,
  until,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, serve, startEcho } from "../../support/servers.ts";
import { withProgram } from "../../support/system-programs.ts";

const SPIPED = commandOf("ours", "spiped");

/** Starts a daemon with additional environment variables, and waits until it listens. */
const startWith = (env: Record<string, string>, ...options: string[]) =>
  startAs((command) => command, env, ...options);

/** Like startWith(), but `wrap` returns the command that runs the daemon. */
async function startAs(
  wrap: (command: readonly string[]) => readonly string[],
  env: Record<string, string>,
  ...options: string[]
) {
  const echo = await startEcho();
  const source = await freeAddress();
  const key = keyFile();
  const args = ["-F", "-e", "-s", source.text, "-t", echo.address.text, "-k", key, ...options];
  const daemon = start(wrap([...SPIPED, ...args]), { env: { ...process.env, ...env } });
  await untilListening(daemon, source);
  return { daemon, source, echo, key };
}

const untilLogged = (daemon: Running, text: string) => until(() => daemon.stderr().includes(text));

async function ends(daemon: Running) {
  process.kill(daemon.pid, "SIGTERM");
  expect(await daemon.ended).toEqual({ status: 0, signal: null });
}

describeIfInstalled(
  "root",
  "unshare",
  "systemd-notify",
  "logger",
)("a daemon", () => {
  it("keeps running if systemd-notify is missing or fails", async () => {
    const start = (script: string | undefined) =>
      startAs((command) => withProgram("systemd-notify", script, command), { NOTIFY_SOCKET: "/nowhere" });
    const without = await start(undefined);
    await untilLogged(without.daemon, "spiped: cannot run systemd-notify: not found in /usr/bin, ");
    await ends(without.daemon);
    const failing = await start("exit 3");
    await untilLogged(failing.daemon, "spiped: systemd-notify exited with status 3");
    await ends(failing.daemon);
  });

  it.each([
    ["if logger is missing", undefined, "spiped: cannot run logger: not found in /usr/bin, "],
    ["if logger fails", "exit 3", "spiped: logger exited with status 3"],
  ])("keeps running %s", async (_when, script, line) => {
    const wrap = (command: readonly string[]) => withProgram("logger", script, command);
    const { daemon, source } = await startAs(wrap, {}, "--syslog", "-n", "1");
    for (let i = 0; i < 2; i += 1) await exchange(source, "x").catch(() => {});
    await untilLogged(daemon, line);
    await ends(daemon);
  });

  it("does not run a logger that other users can write to", async () => {
    const wrap = (command: readonly string[]) =>
      withProgram("logger", "exit 0", ["sh", "-c", 'chmod 777 /usr/bin/logger; exec "$@"', "sh", ...command]);
    const { daemon, source } = await startAs(wrap, {}, "--syslog", "-n", "1");
    await exchange(source, "x").catch(() => {});
    await untilLogged(
      daemon,
      "spiped: cannot run logger: other users can change it: /usr/bin/logger is world-writable",
    );
    await ends(daemon);
  });
});

describe("a daemon", () => {
  it("writes no priority prefix if JOURNAL_STREAM names another stream", async () => {
    for (const JOURNAL_STREAM of ["1:2", ""]) {
      const { daemon, source } = await startWith({ JOURNAL_STREAM }, "-n", "1");
      await exchange(source, "x").catch(() => {});
      await untilLogged(daemon, "Maximum");
      expect(daemon.stderr()).toMatch(/^spiped: Maximum/);
      await ends(daemon);
    }
  });

  it.each(["Infinity", "1e9", "-1", "x", ""])("uses no sockets if LISTEN_FDS is %j", async (number) => {
    const wrap = (command: readonly string[]) => {
      const script = 'LISTEN_PID=$$ LISTEN_FDS="$0" exec "$@"';
      return ["sh", "-c", script, number, ...command];
    };
    const { daemon } = await startAs(wrap, {});
    await ends(daemon);
  });

  it("uses no sockets if LISTEN_PID is another process", async () => {
    const { daemon } = await startWith({ LISTEN_PID: "1", LISTEN_FDS: "1" });
    await ends(daemon);
  });
});

describeIfInstalled(
  "root",
  "unshare",
  "getent",
)("-u without getent", () => {
  const withoutGetent = (command: readonly string[]) => withProgram("getent", undefined, command);

  it.each(["nobody", "nobody:daemon", "65534"])("finds %s in /etc/passwd and /etc/group", async (spec) => {
    const { daemon } = await startAs(withoutGetent, {}, "-u", spec);
    await until(() => /^Uid:\s+65534\s/m.test(readFileSync(`/proc/${daemon.pid}/status`, "latin1")));
    await ends(daemon);
  });

  it("reports unknown users and groups", async () => {
    const source = await freeAddress();
    const args = ["-F", "-e", "-s", source.text, "-t", "[127.0.0.1]:1", "-k", keyFile()];
    for (const [spec, why] of [
      ["no-such-user", "No such user: no-such-user"],
      ["nobody:no-such-group", "No such group: no-such-group"],
      ["nobody:", 'Empty group name: "nobody:"'],
    ] as const) {
      const { status, stderr } = await run(withoutGetent([...SPIPED, ...args, "-u", spec]));
      expect({ status, stderr }).toEqual({
        status: 1,
        stderr: `spiped: ${why}\nspiped: Failed to drop privileges\n`,
      });
    }
  });
});

describe("-b", () => {
  it.each(["[127.0.0.2]", "[127.0.0.2]:0", "127.0.0.2", "127.0.0.2:0"])(
    "%s is the source address of connections to the target",
    async (bind) => {
      const seen: (string | undefined)[] = [];
      const target = await serve((socket) => {
        seen.push(socket.remoteAddress);
        socket.resume().end();
      });
      const wire = await freeAddress();
      const key = keyFile();
      await startSpiped("ours", "-d", wire, target.address, key, "-b", bind);
      expect((await run([...commandOf("ours", "spipe"), "-t", wire.text, "-k", key])).status).toBe(0);
      expect(seen).toEqual(["127.0.0.2"]);
    },
  );
});

describeIfInstalled("spiped")("a client that disconnects", () => {
  it("before it has sent its PROXY header is closed and logged", async () => {
    const key = keyFile();
    const wire = await freeAddress();
    const daemon = await startSpiped(
      "ours",
      "-e",
      wire,
      "[127.0.0.1]:1",
      key,
      "--log-level",
      "info",
      "--accept-proxy",
      "127.0.0.2",
    );
    const { connect } = await import("node:net");
    const disconnect = async (localAddress: string) => {
      const socket = connect({ ...(wire.connect as { host: string; port: number }), localAddress });
      await new Promise((connected) => socket.once("connect", connected));
      socket.end();
    };
    await disconnect("127.0.0.2");
    await untilLogged(daemon, "PROXY header: peer closed");
    expect(daemon.child.exitCode).toBeNull();
  });
});
