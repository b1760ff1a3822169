/** A daemon with several worker processes. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  cleanUp,
  commandOf,
  connectTo,
  freeAddress,
  isListening,
  keyFile,
  type Running,
  readableCommandOf,
  run,
  start,
  startSpiped,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, startEcho } from "../../support/servers.ts";
import { listeningPorts } from "../../support/sockets.ts";

/** Returns the workers' pids. */
function workersOf({ pid }: Running): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    .trim()
    .split(" ")
    .filter(Boolean)
    .map(Number);
}

async function withWorkers(...options: string[]) {
  const key = keyFile();
  const echo = await startEcho();
  const wire = await freeAddress();
  const daemon = await startSpiped("ours", "-d", wire, echo.address, key, "--workers", "2", ...options);
  // A worker that has not received the socket yet is not expected to respond.
  await until(() => workersOf(daemon).filter((pid) => listeningPorts(pid).length > 0).length === 2);
  const plain = await freeAddress();
  await startSpiped("c", "-e", plain, wire, key);
  return { key, echo, wire, plain, daemon };
}

describeIfInstalled(
  "spiped",
  "spipe",
  "prlimit",
)("--workers", () => {
  it("distributes connections among processes with the title spiped", async () => {
    const { plain, daemon } = await withWorkers();
    const data = randomBytes(300_000);
    const answers = await Promise.all(Array.from({ length: 20 }, () => exchange(plain, data)));
    for (const answer of answers) expect(answer.equals(data)).toBe(true);
    for (const pid of workersOf(daemon)) {
      expect(readFileSync(`/proc/${pid}/cmdline`, "latin1")).toMatch(/^spiped /);
      // Both have served connections: each has used processor time.
      expect(Number(readFileSync(`/proc/${pid}/stat`, "latin1").split(" ")[13])).toBeGreaterThan(0);
    }
  });

  it("serves a UNIX source", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const source = await freeAddress("UNIX");
    await startSpiped("c", "-d", wire, echo.address, key);
    await startSpiped("ours", "-e", source, wire, key, "--workers", "2");
    const data = randomBytes(100_000);
    for (let i = 0; i < 4; i += 1) expect((await exchange(source, data)).equals(data)).toBe(true);
  });

  it("applies -n to the total of all workers", async () => {
    const { plain, daemon } = await withWorkers("-n", "3");
    const sockets = [];
    for (let i = 0; i < 3; i += 1) {
      const socket = await connectTo(plain);
      socket.write("x");
      await once(socket, "readable");
      sockets.push(socket);
    }
    const fourth = await connectTo(plain);
    let answered = false;
    fourth.on("data", () => {
      answered = true;
    });
    fourth.write("x");
    await until(() => daemon.stderr().includes("Maximum number of connections (3) reached"));
    expect(answered).toBe(false);
    sockets[0]!.destroy();
    await until(() => answered);
  });

  it("replaces a worker that is killed, logs it, and releases its slots", async () => {
    const { plain, daemon } = await withWorkers("-n", "2");
    const sockets = [await connectTo(plain), await connectTo(plain)];
    let answered = 0;
    let closed = 0;
    for (const socket of sockets) {
      socket.on("data", () => {
        answered += 1;
      });
      socket.on("end", () => {
        closed += 1;
      });
      socket.write("x");
    }
    await until(() => answered === 2);
    for (const victim of workersOf(daemon)) {
      process.kill(victim, "SIGKILL");
      await until(() => workersOf(daemon).length === 2 && !workersOf(daemon).includes(victim));
      // The daemon has logged it by now, but this process may not have read it.
      const line = `spiped: worker ${victim} exited (SIGKILL): its connections were lost; restarting\n`;
      await until(() => daemon.stderr().includes(line));
    }
    await until(() => closed === 2);
    for (let i = 0; i < 4; i += 1) expect(String(await exchange(plain, "again"))).toBe("again");
  });

  it("loses only the connections of a worker that is killed", { timeout: 120_000 }, async () => {
    const { plain, daemon } = await withWorkers();
    const SECONDS = 10;
    const killed = new Set<number>();
    // Each connection is answered unless a worker was killed while it was open.
    let answered = 0;
    let lost = 0;
    const end = performance.now() + SECONDS * 1000;
    const killer = (async () => {
      for (; performance.now() < end; await new Promise((later) => setTimeout(later, 2000))) {
        const [victim] = workersOf(daemon).filter((pid) => !killed.has(pid));
        if (victim === undefined) continue;
        killed.add(victim);
        process.kill(victim, "SIGKILL");
      }
    })();
    const client = async () => {
      while (performance.now() < end) {
        const kills = killed.size;
        const answer = await exchange(plain, "x").then(String, () => "");
        if (answer === "x") answered += 1;
        else {
          expect(killed.size, "lost without a kill").toBeGreaterThan(kills);
          lost += 1;
        }
      }
    };
    // A kill is counted before it happens, and the connections that it closes end after it.
    await Promise.all([killer, ...Array.from({ length: 4 }, client)]);
    expect(killed.size).toBeGreaterThan(2);
    expect(answered).toBeGreaterThan(20);
    expect(lost).toBeLessThanOrEqual(4 * killed.size);
    await until(() => workersOf(daemon).length === 2);
    for (let i = 0; i < 4; i += 1) expect(String(await exchange(plain, "again"))).toBe("again");
  });

  it("serves all clients while a worker is stopped, logs its pid, and exits despite it", async () => {
    const metrics = await freeAddress();
    const { plain, daemon, wire } = await withWorkers("--metrics", metrics.text);
    const { port } = metrics.connect as { port: number };
    const get = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).text();
    const held = await connectTo(plain);
    held.write("x");
    await once(held, "readable");
    // The worker that serves the held connection has an additional socket, to the echo server.
    const [first, second] = workersOf(daemon) as [number, number];
    const sockets = (pid: number) =>
      readdirSync(`/proc/${pid}/fd`).filter((fd) =>
        readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith("socket:"),
      ).length;
    const stopped = sockets(first) > sockets(second) ? second : first;
    cleanUp(() => {
      if (existsSync(`/proc/${stopped}`)) process.kill(stopped, "SIGCONT");
    });
    process.kill(stopped, "SIGSTOP");
    // Fewer at a time than 10, the backlog of Tarsnap's listen().
    for (let round = 0; round < 8; round += 1) {
      const answers = await Promise.all(
        Array.from({ length: 5 }, () => exchange(plain, "hello").then(String)),
      );
      expect(answers).toEqual(Array(5).fill("hello"));
    }
    await until(() => daemon.stderr().includes(`spiped: worker ${stopped} does not respond`));
    expect(await get("/healthz")).toMatch(/^ok/);
    expect(await get("/readyz")).toMatch(/^ready/);
    expect(await get("/metrics")).toContain("spiped_connections_total");
    process.kill(stopped, "SIGCONT");
    await until(() => daemon.stderr().includes(`spiped: worker ${stopped} responds again`));
    process.kill(stopped, "SIGSTOP");
    process.kill(daemon.pid, "SIGTERM");
    // The daemon drains while the other worker has a connection, though it has found that the first one does not respond.
    await new Promise((later) => setTimeout(later, 3000));
    expect(daemon.child.exitCode).toBeNull();
    held.end();
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
    expect(isListening(wire)).toBe(false);
    for (const pid of [first, second]) expect(existsSync(`/proc/${pid}`)).toBe(false);
  });

  it("keeps serving when no worker can be started, and retries until it can", async () => {
    const { plain, daemon } = await withWorkers();
    expect(String(await exchange(plain, "x"))).toBe("x");
    const limit = (files: string) => run(["prlimit", `--pid=${daemon.pid}`, `--nofile=${files}`]);
    const open = readdirSync(`/proc/${daemon.pid}/fd`).length;
    await limit(`${open - 2}:`);
    process.kill(workersOf(daemon)[0]!, "SIGKILL");
    await until(() => daemon.stderr().includes("cannot start worker: Too many open files"));
    await limit("4096:");
    await until(() => workersOf(daemon).length === 2);
    expect(String(await exchange(plain, "again"))).toBe("again");
    process.kill(daemon.pid, "SIGTERM");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });

  it("supports keys, their limits, and status requests", async () => {
    const keys = join(temporaryDirectory(), "keys");
    mkdirSync(keys);
    for (const name of ["alice", "bob"])
      writeFileSync(join(keys, `${name}.key`), randomBytes(32), { mode: 0o600 });
    writeFileSync(join(keys, "alice.toml"), "max-connections = 1\n");
    const echo = await startEcho();
    const [wire, metrics] = [await freeAddress(), await freeAddress()];
    const options = ["--workers", "2", "--metrics", metrics.text, "--log-level", "info"];
    const daemon = await startSpiped("ours", "-d", wire, echo.address, keys, ...options);
    const client = (name: string) => {
      const spipe = start([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, `${name}.key`)]);
      spipe.child.stdin!.write(name);
      return spipe;
    };
    const answered = (spipe: Running, text: string) => until(() => String(spipe.stdout()) === text);
    const first = client("alice");
    await answered(first, "alice");
    // The second client of alice's is queued and killed, the third is queued; bob's is served.
    const second = client("alice");
    await until(() => daemon.stderr().includes("Maximum number of connections (1) for key alice reached"));
    await answered(client("bob"), "bob");
    const get = async (path: string) => {
      const { port } = metrics.connect as { port: number };
      const response = await fetch(`http://127.0.0.1:${port}${path}`);
      return { status: response.status, text: await response.text() };
    };
    const third = client("alice");
    second.child.kill("SIGKILL");
    expect(await get("/readyz")).toEqual({ status: 200, text: "ready\n" });
    const pages = await Promise.all([get("/metrics"), get("/metrics"), get("/")]);
    expect(pages[0].text).toMatch(/^spiped_connections\{(?=[^}]*state="open")(?=[^}]*key="bob")[^}]*\} 1$/m);
    expect(pages[2].text).toContain("<td>default</td>");
    first.child.stdin!.end();
    await answered(third, "alice");
  });

  it("drains and reloads all workers", async () => {
    const { key, wire, daemon } = await withWorkers("--log-level", "info");
    writeFileSync(key, randomBytes(32));
    process.kill(daemon.pid, "SIGHUP");
    await until(() => daemon.stderr().includes("reloaded"));
    for (let i = 0; i < 4; i += 1) {
      const { stdout } = await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key], "new key");
      expect(String(stdout)).toBe("new key");
    }
    const held = start([...commandOf("c", "spipe"), "-t", wire.text, "-k", key]);
    held.child.stdin!.write("x");
    await until(() => String(held.stdout()) === "x");
    process.kill(daemon.pid, "SIGHUP");
    await until(() => daemon.stderr().split("reloaded").length === 3);
    process.kill(daemon.pid, "SIGTERM");
    await until(() => !isListening(wire));
    held.child.stdin!.end("y");
    expect((await held.ended).status).toBe(0);
    expect(String(held.stdout())).toBe("xy");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
  });
});

describeIfInstalled("spiped")("a daemon with workers that stops at once", () => {
  it("leaves no worker behind that a signal has stopped", async () => {
    const { plain, daemon } = await withWorkers("--log-level", "info");
    const held = await connectTo(plain);
    held.on("error", () => {}).write("x");
    await once(held, "readable");
    const workers = workersOf(daemon);
    for (const pid of workers) process.kill(pid, "SIGSTOP");
    process.kill(daemon.pid, "SIGTERM");
    await until(() => daemon.stderr().includes("stopping"));
    process.kill(daemon.pid, "SIGTERM");
    await daemon.ended;
    await until(() => workers.every((pid) => !existsSync(`/proc/${pid}`)));
  });

  it("logs the end of each connection", async () => {
    const { plain, daemon } = await withWorkers("--log-level", "info", "--drain-timeout", "0.2");
    const held = await connectTo(plain);
    held.on("error", () => {}).write("x");
    await once(held, "readable");
    process.kill(daemon.pid, "SIGTERM");
    expect(await daemon.ended).toEqual({ status: 0, signal: null });
    expect(daemon.stderr()).toMatch(/connection 1 from .* ended after .*: daemon stopped\n/);
  });
});

describe("--workers", () => {
  it.each(["many", "0", "-1", "257"])("accepts a number or auto, but not %s", async (workers) => {
    const args = ["-F", "-d", "-s", "[127.0.0.1]:1", "-t", "[127.0.0.1]:1", "-k", keyFile()];
    expect(await run([...commandOf("ours", "spiped"), ...args, "--workers", workers])).toMatchObject({
      status: 1,
      stderr: `spiped: --workers must be auto or a number from 1 to 256, not ${workers}\n`,
    });
  });
});

describeIfInstalled("root", "setpriv")("after -u, a worker", () => {
  it("and its replacement have memory that other processes of the same user can't read", async () => {
    const [key, echo, wire, plain] = [keyFile(), await startEcho(), await freeAddress(), await freeAddress()];
    const tunnel = ["-d", "-s", wire.text, "-t", echo.address.text, "-k", key];
    const daemon = start([...readableCommandOf("spiped"), "-F", ...tunnel, "--workers", "2", "-u", "nobody"]);
    await untilListening(daemon, wire);
    await until(() => workersOf(daemon).length === 2);
    await startSpiped("c", "-e", plain, wire, key);
    const isPrivate = async (pid: number) => {
      await until(() => /^Uid:\s+65534\s+65534/m.test(readFileSync(`/proc/${pid}/status`, "latin1")));
      const asNobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"];
      for (const file of ["mem", "environ"]) {
        const { status, stderr } = await run([...asNobody, "head", "-c", "1", `/proc/${pid}/${file}`]);
        expect({ status, stderr }).toEqual({
          status: 1,
          stderr: expect.stringContaining("Permission denied"),
        });
      }
    };
    for (const pid of [daemon.pid, ...workersOf(daemon)]) await isPrivate(pid);
    const [victim] = workersOf(daemon) as [number];
    process.kill(victim, "SIGKILL");
    await until(() => workersOf(daemon).length === 2 && !workersOf(daemon).includes(victim));
    for (const pid of workersOf(daemon)) await isPrivate(pid);
    expect(String(await exchange(plain, "hello"))).toBe("hello");
  });
});

describe("NODE_UNIQUE_ID", () => {
  it("is rejected", async () => {
    const args = ["-F", "-d", "-s", "[127.0.0.1]:1", "-t", "[127.0.0.1]:1", "-k", keyFile()];
    const env = { ...process.env, NODE_UNIQUE_ID: "1" };
    expect(await run([...commandOf("ours", "spiped"), ...args], "", { env })).toMatchObject({
      status: 1,
      stderr: "spiped: NODE_UNIQUE_ID is set, as in a worker of node:cluster; unset it\n",
    });
  });
});
