/**
 * Unauthenticated connections: their maximum number, which are closed when there are too many, and that honest clients
 * are not affected.
 *
 * UNAUTHENTICATED_BURST sets the number of connections in the burst. Times are printed, not checked.
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { withoutFailureLines } from "../../support/log-lines.ts";
import {
  cleanUp,
  commandOf,
  connectTo,
  freeAddress,
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
import { rawHandshake } from "../../support/raw-peer.ts";
import { startEcho } from "../../support/servers.ts";
import { descriptors } from "../../support/sockets.ts";

const BURST = Number(process.env.UNAUTHENTICATED_BURST ?? 2000);

/** Starts `spiped -F -d` with a limit on file descriptors. */
async function startLimited(limit: number, wire: TestAddress, ...args: string[]): Promise<Running> {
  const daemon = start([
    ...["bash", "-c", `ulimit -n ${limit}; exec "$@"`, "-"],
    ...[...commandOf("ours", "spiped"), "-F", "-d", "-s", wire.text, ...args],
  ]);
  await untilListening(daemon, wire);
  return daemon;
}

/** Opens connections that send nothing, each from one of eight addresses. */
async function openSilent(address: TestAddress, count: number): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, (_, i) => {
    const socket = connect({
      ...(address.connect as { port: number }),
      localAddress: `127.0.1.${1 + (i % 8)}`,
    });
    socket.on("error", () => {}).resume();
    cleanUp(() => void socket.destroy());
    return socket;
  });
  await Promise.all(sockets.map((socket) => Promise.race([once(socket, "connect"), once(socket, "close")])));
  return sockets;
}

/** Sends a byte through a tunnel and returns the time until its echo, in ms. */
async function echoTime(plain: TestAddress): Promise<number> {
  const begin = performance.now();
  const socket = await connectTo(plain);
  await new Promise<void>((resolve, reject) => {
    socket.once("data", () => resolve());
    socket.once("close", () => reject(new Error("closed without an answer")));
    socket.write("x");
  });
  socket.destroy();
  return performance.now() - begin;
}

const spipe = (wire: TestAddress, key: string, input: string) =>
  run([...commandOf("ours", "spipe"), "-t", wire.text, "-k", key], input);

describe("a burst of honest connections from one address", () => {
  it(`is served without a reset: ${BURST} at once`, { timeout: 300_000 }, async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    const server = await startSpiped("ours", "-d", wire, echo.address, key, "-n", "0");
    const client = await startSpiped("ours", "-e", plain, wire, key, "-n", "0");
    const begin = performance.now();
    let lost = 0;
    await Promise.all(
      Array.from({ length: BURST }, async () => {
        await echoTime(plain).catch(() => {
          lost += 1;
        });
      }),
    );
    console.log(`${BURST} connections in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
    expect(lost).toBe(0);
    expect(server.stderr() + client.stderr()).toBe("");
  });
});

describe("the cap on unauthenticated connections", () => {
  it("applies across reloads", async () => {
    const echo = await startEcho();
    const wire = await freeAddress();
    const key = keyFile();
    const daemon = await startSpiped(
      "ours",
      "-d",
      wire,
      echo.address,
      key,
      "-o",
      "50",
      "--log-level",
      "info",
    );
    const count = (what: string) => daemon.stderr().split(what).length - 1;
    for (let round = 1; round <= 4; round += 1) {
      await openSilent(wire, 1200);
      await until(
        () => count("bytes decrypted: too many unauthenticated connections") === 1200 * round - 1024,
      );
      expect(descriptors(daemon.pid)).toBeLessThan(1100);
      process.kill(daemon.pid, "SIGHUP");
      await until(() => count("reloaded") === round);
    }
    expect((await spipe(wire, key, "honest")).stdout.toString()).toBe("honest");
  });

  it("includes connections that have not sent their PROXY header", async () => {
    const echo = await startEcho();
    const wire = await freeAddress();
    const key = keyFile();
    const args = ["-o", "50", "--accept-proxy", "127.0.1.0/24"];
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, ...args);
    await openSilent(wire, 2000);
    await until(() => descriptors(daemon.pid) < 1100);
    expect((await spipe(wire, key, "honest")).stdout.toString()).toBe("honest");
  });

  it.each([128, 256, 1024])("leaves enough descriptors for honest clients at ulimit -n %i", async (limit) => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startLimited(limit, wire, "-t", echo.address.text, "-k", key, "-o", "50");
    let flooding = true;
    const floods = Array.from({ length: limit * 2 }, async (_, i) => {
      while (flooding) {
        const socket = connect({
          ...(wire.connect as { port: number }),
          localAddress: `127.0.1.${1 + (i % 8)}`,
        });
        cleanUp(() => void socket.destroy());
        socket.on("error", () => {}).resume();
        await once(socket, "close").catch(() => {});
        await new Promise((done) => setTimeout(done, 500));
      }
    });
    await until(() => descriptors(daemon.pid) > limit / 3);
    for (let i = 0; i < 5; i += 1) {
      expect((await spipe(wire, key, "during")).stdout.toString()).toBe("during");
      expect(descriptors(daemon.pid)).toBeLessThan(limit - 8);
    }
    expect(withoutFailureLines(daemon.stderr())).toBe(
      `spiped: Error accepting a connection: file descriptors run out: the limit is ${limit} (ulimit -n)\n`,
    );
    flooding = false;
    process.kill(daemon.pid, "SIGKILL");
    await Promise.all(floods);
  });

  it.each([256, 1024])(
    "allows honest clients during and after floods, with two workers at ulimit -n %i",
    async (limit) => {
      const key = keyFile();
      const echo = await startEcho();
      const wire = await freeAddress();
      const options = ["-t", echo.address.text, "-k", key, "-o", "50", "--workers", "2"];
      const daemon = await startLimited(limit, wire, ...options);
      const serves = async () => {
        const answers = await Promise.all(
          Array.from({ length: 8 }, (_, i) => spipe(wire, key, `client ${i}`)),
        );
        expect(answers.map(({ stdout }) => stdout.toString())).toEqual(answers.map((_, i) => `client ${i}`));
      };
      for (const partOfHandshake of [0, 32, 100]) {
        const sockets = await openSilent(wire, 3 * limit);
        for (const socket of sockets) socket.write(Buffer.alloc(partOfHandshake));
        // The flood's connections are still open.
        await serves();
        for (const socket of sockets) socket.destroy();
        await serves();
      }
      expect(daemon.stderr()).not.toContain("worker");
    },
  );

  it("does not close a client that makes slow progress", { timeout: 120_000 }, async () => {
    const echo = await startEcho();
    const wire = await freeAddress();
    const key = keyFile();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, "-o", "50");
    const honest: Promise<boolean>[] = [];
    for (let i = 0; i < 10; i += 1) {
      honest.push(
        connectTo(wire).then(
          async (socket) => (await rawHandshake(socket, key, { delay: 300 })) !== undefined,
        ),
      );
      await openSilent(wire, 400);
    }
    expect(await Promise.all(honest)).toEqual(honest.map(() => true));
    expect(withoutFailureLines(daemon.stderr())).toBe("");
  });

  it("also closes plaintext connections before descriptors run out", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    await startSpiped("ours", "-d", wire, echo.address, key, "-n", "0");
    const daemon = start([
      ...["bash", "-c", 'ulimit -n 128; exec "$@"', "-", ...commandOf("ours", "spiped")],
      ...["-F", "-e", "-s", plain.text, "-t", wire.text, "-k", key, "-n", "0"],
    ]);
    await untilListening(daemon, plain);
    const results = await Promise.all(
      Array.from({ length: 300 }, () =>
        echoTime(plain).then(
          () => true,
          () => false,
        ),
      ),
    );
    expect(results.filter(Boolean).length).toBeGreaterThan(20);
    expect(await echoTime(plain)).toBeGreaterThan(0);
    expect(withoutFailureLines(daemon.stderr())).toBe(
      "spiped: Error accepting a connection: file descriptors run out: the limit is 128 (ulimit -n)\n",
    );
  });
});

describe("penalties", () => {
  /** Creates a directory with `count` keys; returns it and the last key. */
  function manyKeys(count: number): { directory: string; last: string } {
    const directory = join(temporaryDirectory(), "keys");
    mkdirSync(directory, { mode: 0o700 });
    for (let i = 1; i <= count; i += 1) {
      const name = `client-${String(i).padStart(5, "0")}.key`;
      writeFileSync(join(directory, name), randomBytes(32), { mode: 0o600 });
    }
    return { directory, last: join(directory, `client-${String(count).padStart(5, "0")}.key`) };
  }

  const startFlood = (wire: TestAddress) =>
    start([
      process.execPath,
      resolve("test/support/wrong-handshakes.mjs"),
      String((wire.connect as { port: number }).port),
      "200",
    ]);

  it("keep a flood of failing handshakes from delaying honest clients", { timeout: 180_000 }, async () => {
    const { directory, last } = manyKeys(1000);
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, directory, "-n", "0");
    await startSpiped("ours", "-e", plain, wire, last, "-o", "30");
    const flood = startFlood(wire);
    await until(() => daemon.stderr().includes("closing connections from"));
    const times: number[] = [];
    for (let i = 0; i < 60; i += 1) times.push(await echoTime(plain));
    flood.child.stdin!.end();
    await flood.ended;
    const { count, refused } = JSON.parse(String(flood.stdout()));
    expect(refused).toBeGreaterThan(0);
    expect(withoutFailureLines(daemon.stderr())).toMatch(
      /^spiped: closing connections from 127\.0\.2\.\d for \d+ s: its handshakes failed with a wrong key\n/,
    );
    times.sort((a, b) => a - b);
    const at = (share: number) => times[Math.floor(times.length * share)]!.toFixed(1);
    console.log(
      `${count} wrong handshakes, ${refused} refused; echo ${at(0.5)} / ${at(0.95)} ms (50 / 95 %)`,
    );
  });

  it("do not apply to exempt addresses, nor to an address that succeeded before", async () => {
    const { directory, last } = manyKeys(1000);
    const echo = await startEcho();
    const wire = await freeAddress();
    const args = ["--penalty-exempt", "127.0.2.1", "--penalty-exempt", "127.0.2.2/31"];
    await startSpiped("ours", "-d", wire, echo.address, directory, "-n", "0", ...args);
    const from = async (localAddress: string, bytes?: Buffer) => {
      const socket = connect({ ...(wire.connect as { port: number; host: string }), localAddress });
      cleanUp(() => void socket.destroy());
      socket.on("error", () => {});
      await once(socket, "connect");
      if (bytes === undefined) return (await rawHandshake(socket, last)) !== undefined;
      socket.write(bytes);
      await until(() => socket.destroyed || socket.readableEnded || socket.readableLength >= 32);
      const served = socket.readableLength >= 32;
      socket.resume();
      await until(() => socket.destroyed || socket.readableEnded);
      return served;
    };
    expect(await from("127.0.2.5")).toBe(true);
    for (const address of ["127.0.2.1", "127.0.2.3", "127.0.2.4", "127.0.2.5"]) {
      for (let i = 0; i < 20; i += 1) await from(address, randomBytes(320));
    }
    expect(await from("127.0.2.1")).toBe(true);
    expect(await from("127.0.2.3")).toBe(true);
    expect(await from("127.0.2.4", randomBytes(320))).toBe(false);
    expect(await from("127.0.2.4")).toBe(false);
    expect(await from("127.0.2.5")).toBe(true);
  });

  it("expire, after which the client is served again", { timeout: 120_000 }, async () => {
    const { directory, last } = manyKeys(1000);
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, directory, "--log-level", "info");
    const other = keyFile();
    const penalize = async () => {
      await until(async () => {
        const socket = await connectTo(wire);
        return (await rawHandshake(socket, other)) === undefined && daemon.stderr().includes("penalized");
      });
    };
    await penalize();
    expect((await spipe(wire, last, "x")).status).toBe(1);
    // The penalized address now uses a valid key.
    await until(async () => (await spipe(wire, last, "x")).status === 0);
  });
});
