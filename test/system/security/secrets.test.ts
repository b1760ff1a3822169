/** Keys are kept only where they are needed, and erased when they no longer are. */
import { createHash, randomBytes } from "node:crypto";
import { closeSync, openSync, readdirSync, readFileSync, readSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { PACKET_SIZE } from "../../../src/protocol/packet.ts";
import {
  commandOf,
  connectTo,
  freeAddress,
  start,
  startSpiped,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { rawHandshake, rawPacket, readBytes } from "../../support/raw-peer.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, startEcho } from "../../support/servers.ts";
import { descriptors } from "../../support/sockets.ts";

/** Returns the forms that bytes might have in a heap snapshot, which has strings but no contents of buffers. */
const forms = (bytes: Buffer) => [
  bytes.toString("hex"),
  bytes.toString("base64"),
  JSON.stringify(bytes.toString("latin1")).slice(1, -1),
  JSON.stringify(bytes.toString("utf8")).slice(1, -1),
  [...bytes].join(","),
];

describeIfInstalled("spiped")("a daemon after 100 connections", () => {
  it("has K, E and H in no string of its heap, and not in its command line, environment or log", async () => {
    const directory = temporaryDirectory();
    const key = join(directory, "key");
    const contents = Buffer.from("correct horse battery staple, 32+ bytes of it");
    writeFileSync(key, contents, { mode: 0o600 });
    const echo = await startEcho();
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    const [node, file] = commandOf("ours", "spiped");
    const daemon = start([
      ...[node, "--heapsnapshot-signal=SIGUSR2", `--diagnostic-dir=${directory}`, file!],
      ...["-F", "-d", "-s", wire.text, "-t", echo.address.text, "-k", key, "--log-level", "info"],
    ]);
    await untilListening(daemon, wire);
    await startSpiped("c", "-e", plain, wire, key);
    for (let i = 0; i < 100; i += 1) await exchange(plain, randomBytes(3000));
    // One more connection, which stays open and whose session keys the test knows.
    const socket = await connectTo(wire);
    const session = await rawHandshake(socket, key);

    process.kill(daemon.pid, "SIGUSR2");
    let snapshot = "";
    await until(() => {
      const name = readdirSync(directory).find((entry) => entry.endsWith(".heapsnapshot"));
      if (name === undefined) return false;
      snapshot = readFileSync(join(directory, name), "utf8");
      return snapshot.endsWith("]}") || snapshot.trimEnd().endsWith("]}");
    });
    const K = createHash("sha256").update(contents).digest();
    const { up, down } = session!;
    const secrets = { file: contents, K, ec: up.encrypt, hc: up.mac, es: down.encrypt, hs: down.mac };
    for (const [name, secret] of Object.entries(secrets)) {
      for (const form of forms(secret)) expect(snapshot.includes(form), `${name} in the heap`).toBe(false);
    }
    // The snapshot does contain strings.
    expect(snapshot).toContain(key);

    for (const source of ["cmdline", "environ"]) {
      const text = readFileSync(`/proc/${daemon.pid}/${source}`);
      expect(text.includes(contents)).toBe(false);
      expect(text.includes(K)).toBe(false);
    }
    for (const form of [...forms(K), contents.toString()]) expect(daemon.stderr()).not.toContain(form);
  });

  it("has no session keys of closed connections in its memory", async () => {
    const directory = temporaryDirectory();
    const key = join(directory, "key");
    writeFileSync(key, randomBytes(32), { mode: 0o600 });
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key);
    const before = descriptors(daemon.pid);
    const sessions = [];
    for (let i = 0; i < 20; i += 1) {
      const socket = await connectTo(wire);
      const session = (await rawHandshake(socket, key))!;
      sessions.push(session);
      // Enough messages for keystream ahead.
      for (let number = 0; number < 12; number += 1) {
        socket.write(rawPacket(session.up, number, "message"));
        await readBytes(socket, PACKET_SIZE);
      }
      const closed = new Promise((done) => socket.once("close", done));
      if (i % 2 === 0) socket.resume().end();
      else socket.resetAndDestroy();
      await closed;
    }
    await until(() => echo.sockets.length === 20 && echo.sockets.every((socket) => socket.destroyed));
    await until(() => descriptors(daemon.pid) === before);
    const found = { encrypt: 0, mac: 0, innerPad: 0, outerPad: 0 };
    const padded = (keyBytes: Buffer, pad: number) => Buffer.from(keyBytes.map((byte) => byte ^ pad));
    for (const region of memoryOf(daemon.pid)) {
      for (const { up, down } of sessions) {
        for (const keys of [up, down]) {
          if (region.includes(keys.encrypt)) found.encrypt += 1;
          if (region.includes(keys.mac)) found.mac += 1;
          if (region.includes(padded(keys.mac, 0x36))) found.innerPad += 1;
          if (region.includes(padded(keys.mac, 0x5c))) found.outerPad += 1;
        }
      }
    }
    expect(found).toEqual({ encrypt: 0, mac: 0, innerPad: 0, outerPad: 0 });
    // The search does find the secret, which the daemon still needs.
    const K = createHash("sha256").update(readFileSync(key)).digest();
    expect([...memoryOf(daemon.pid)].some((region) => region.includes(K))).toBe(true);
  });
});

/** Reads the writable memory of a process. */
function* memoryOf(pid: number): Generator<Buffer> {
  const memory = openSync(`/proc/${pid}/mem`, "r");
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, "latin1").split("\n")) {
      const match = /^([\da-f]+)-([\da-f]+) rw/.exec(line);
      if (match === null) continue;
      const [from, to] = [Number.parseInt(match[1]!, 16), Number.parseInt(match[2]!, 16)];
      if (to - from > 1 << 28) continue;
      const region = Buffer.alloc(to - from);
      try {
        yield region.subarray(0, readSync(memory, region, 0, region.length, from));
      } catch {
        // Some mappings can't be read.
      }
    }
  } finally {
    closeSync(memory);
  }
}
