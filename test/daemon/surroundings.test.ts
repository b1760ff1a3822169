/** A system that lacks what the daemon would like to use: it says so, and goes on. */
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  commandOf,
  freeAddress,
  keyFile,
  type Running,
  run,
  start,
  startSpiped,
  temporaryDirectory,
  until,
  untilListening,
} from "../support/programs.ts";
import { describeWith } from "../support/requirements.ts";
import { exchange, serve, startEcho } from "../support/servers.ts";

const SPIPED = commandOf("ours", "spiped");

/** Starts a daemon with an environment of its own, and waits until it listens. */
async function startWith(env: Record<string, string>, ...options: string[]) {
  const echo = await startEcho();
  const source = await freeAddress();
  const key = keyFile();
  const args = ["-F", "-e", "-s", source.text, "-t", echo.address.text, "-k", key, ...options];
  const daemon = start([...SPIPED, ...args], { env: { ...process.env, ...env } });
  await untilListening(daemon, source);
  return { daemon, source, echo, key };
}

const says = (daemon: Running, text: string) => until(() => daemon.stderr().includes(text));

async function ends(daemon: Running) {
  process.kill(daemon.pid, "SIGTERM");
  expect(await daemon.ended).toEqual({ status: 0, signal: null });
}

/** A directory with one program, which ends with a status. */
function programThatEnds(name: string, status: number): string {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, name), `#!/bin/sh\nexit ${status}\n`);
  chmodSync(join(directory, name), 0o755);
  return directory;
}

describe("a daemon", () => {
  it("goes on without systemd-notify, or when it fails", async () => {
    const without = await startWith({ NOTIFY_SOCKET: "/nowhere", PATH: "/nowhere" });
    await says(without.daemon, "spiped: Cannot run systemd-notify: ");
    await ends(without.daemon);
    const failing = await startWith({
      NOTIFY_SOCKET: "/nowhere",
      PATH: programThatEnds("systemd-notify", 3),
    });
    await says(failing.daemon, "spiped: systemd-notify ended with status 3");
    await ends(failing.daemon);
  });

  it.each([
    ["without logger", () => "/nowhere", "spiped: Cannot run logger: "],
    ["when logger fails", () => programThatEnds("logger", 3), "spiped: logger ended with status 3"],
  ])("goes on %s", async (_when, path, line) => {
    const { daemon, source } = await startWith({ PATH: path() }, "--syslog", "-n", "1");
    for (let i = 0; i < 2; i += 1) await exchange(source, "x").catch(() => {});
    await says(daemon, line);
    await ends(daemon);
  });

  it("writes plain lines where the journal reads another stream", async () => {
    for (const JOURNAL_STREAM of ["1:2", ""]) {
      const { daemon, source } = await startWith({ JOURNAL_STREAM }, "-n", "1");
      await exchange(source, "x").catch(() => {});
      await says(daemon, "Maximum");
      expect(daemon.stderr()).toMatch(/^spiped: Maximum/);
      await ends(daemon);
    }
  });

  it("takes no sockets that are meant for another process", async () => {
    const { daemon } = await startWith({ LISTEN_PID: "1", LISTEN_FDS: "1" });
    await ends(daemon);
  });
});

describeWith("root")("-u without getent", () => {
  it.each(["nobody", "nobody:daemon", "65534"])("finds %s in the files", async (spec) => {
    const { daemon } = await startWith({ PATH: "/nowhere" }, "-u", spec);
    await until(() => /^Uid:\s+65534\s/m.test(readFileSync(`/proc/${daemon.pid}/status`, "latin1")));
    await ends(daemon);
  });

  it("tells of users that there are not", async () => {
    const source = await freeAddress();
    const args = ["-F", "-e", "-s", source.text, "-t", "[127.0.0.1]:1", "-k", "/dev/null"];
    for (const [spec, why] of [
      ["no-such-user", "No such user: no-such-user"],
      ["nobody:no-such-group", "No such group: no-such-group"],
      ["nobody:", 'Empty group name: "nobody:"'],
    ] as const) {
      const { status, stderr } = await run([...SPIPED, ...args, "-u", spec], "", {
        env: { ...process.env, PATH: "/nowhere" },
      });
      expect({ status, stderr }).toEqual({
        status: 1,
        stderr: `spiped: ${why}\nspiped: Failed to drop privileges\n`,
      });
    }
  });
});

describe("-b", () => {
  it.each(["[127.0.0.2]", "[127.0.0.2]:0", "127.0.0.2", "127.0.0.2:0"])(
    "%s is where connections come from",
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

describeWith("spiped")("a client that leaves", () => {
  it("before its PROXY header has come is let go", async () => {
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
    const leave = async (localAddress: string) => {
      const socket = connect({ ...(wire.connect as { host: string; port: number }), localAddress });
      await new Promise((connected) => socket.once("connect", connected));
      socket.end();
    };
    await leave("127.0.0.2");
    await says(daemon, "handshake: peer closed");
    expect(daemon.child.exitCode).toBeNull();
  });
});
