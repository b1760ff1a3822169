/** A daemon with many keys, and clients of Tarsnap's with each of them. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { fingerprint } from "../../../src/protocol/fingerprint.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import {
  commandOf,
  connectTo,
  freeAddress,
  keyFile,
  run,
  start,
  startSpiped,
  type TestAddress,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, readAll, serve, startEcho } from "../../support/servers.ts";

/** Creates a directory with a key file for each name. */
function keyDirectory(...names: string[]): string {
  const directory = join(temporaryDirectory(), "keys");
  mkdirSync(directory);
  for (const name of names) writeFileSync(join(directory, name), randomBytes(32), { mode: 0o600 });
  return directory;
}

/** Runs Tarsnap's spipe; returns its exit status and output. */
async function runSpipe(wire: TestAddress, key: string, input = "hello") {
  const { status, stdout } = await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key], input);
  return { status, answer: stdout.toString() };
}

const greeter = (greeting: string) =>
  serve((socket) => {
    socket.resume();
    socket.end(greeting);
  });

describeIfInstalled("spiped", "spipe")("a directory of keys", () => {
  it("accepts clients with any of its keys, and no others", async () => {
    const keys = keyDirectory("alice.key", "alice.2027.key", "carol.2026.key");
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, keys, "--log-level", "info");
    for (const file of ["alice.key", "alice.2027.key", "carol.2026.key"]) {
      expect(await runSpipe(wire, join(keys, file))).toEqual({ status: 0, answer: "hello" });
    }
    expect((await runSpipe(wire, keyFile())).status).toBe(1);
    expect(echo.sockets).toHaveLength(3);
    await until(() => daemon.stderr().includes("wrong key"));
    for (const file of ["alice.key", "alice.2027.key", "carol.2026.key"]) {
      const print = fingerprint(Secret.fromKeyFile(readFileSync(join(keys, file))));
      expect(daemon.stderr()).toContain(`with key ${file.split(".")[0]} (${print}) to `);
    }
  });

  it("serves Tarsnap's spiped -e as well, with several keys at once", async () => {
    const keys = keyDirectory("alice.key", "bob.key");
    const echo = await startEcho();
    const wire = await freeAddress();
    await startSpiped("ours", "-d", wire, echo.address, keys);
    await Promise.all(
      ["alice.key", "bob.key"].map(async (file) => {
        const plain = await freeAddress();
        await startSpiped("c", "-e", plain, wire, join(keys, file));
        const data = randomBytes(200_000);
        expect((await exchange(plain, data)).equals(data)).toBe(true);
      }),
    );
  });

  it("applies a key's own target and expiry date", async () => {
    const keys = keyDirectory("alice.key", "bob.key", "carol.key");
    const common = await greeter("the common target");
    const own = await greeter("bob's own target");
    writeFileSync(join(keys, "bob.toml"), `target = "${own.address.text}"\n`);
    writeFileSync(join(keys, "carol.toml"), "expires = 2020-01-01\n");
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, common.address, keys, "--log-level", "info");
    expect(await runSpipe(wire, join(keys, "alice.key"))).toEqual({ status: 0, answer: "the common target" });
    expect(await runSpipe(wire, join(keys, "bob.key"))).toEqual({ status: 0, answer: "bob's own target" });
    expect((await runSpipe(wire, join(keys, "carol.key"))).status).toBe(1);
    await until(() => /with key carol \(.*: handshake: key expired\n/.test(daemon.stderr()));
    expect(common.sockets).toHaveLength(1);
  });

  it("applies a client's target and expiry date to all of its keys", async () => {
    const keys = keyDirectory("bob.key", "bob.2027.key", "carol.key", "carol.2027.key");
    const common = await greeter("the common target");
    const own = await greeter("bob's own target");
    writeFileSync(join(keys, "bob.toml"), `target = "${own.address.text}"\n`);
    writeFileSync(join(keys, "carol.toml"), "expires = 2020-01-01\n");
    const wire = await freeAddress();
    await startSpiped("ours", "-d", wire, common.address, keys);
    for (const file of ["bob.key", "bob.2027.key"]) {
      expect(await runSpipe(wire, join(keys, file))).toEqual({ status: 0, answer: "bob's own target" });
    }
    for (const file of ["carol.key", "carol.2027.key"])
      expect((await runSpipe(wire, join(keys, file))).status).toBe(1);
    expect(common.sockets).toHaveLength(0);
  });

  it("queues the clients of a key that has reached its limit, but not those of other keys", async () => {
    const keys = keyDirectory("alice.key", "bob.key", "bob.2027.key");
    writeFileSync(join(keys, "bob.toml"), "max-connections = 1\n");
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, keys);
    const spipe = (key: string) =>
      start([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, key), "-o", "60"]);
    const first = spipe("bob.key");
    first.child.stdin!.write("1");
    await until(() => first.stdout().toString() === "1");
    const second = spipe("bob.2027.key");
    second.child.stdin!.write("2");
    expect(await runSpipe(wire, join(keys, "alice.key"))).toEqual({ status: 0, answer: "hello" });
    expect(second.stdout().toString()).toBe("");
    expect(daemon.stderr()).toBe("spiped: Maximum number of connections (1) for key bob reached\n");
    first.child.stdin!.end();
    await until(() => second.stdout().toString() === "2");
  });

  it("is rejected if it is empty or has an invalid .toml file, which the error names", async () => {
    const empty = keyDirectory();
    const args = (keys: string) => [
      ...commandOf("ours", "spiped"),
      ...["-F", "-d", "-s", "[127.0.0.1]:1", "-t", "[127.0.0.1]:1", "-k", keys],
    ];
    expect(await run(args(empty))).toMatchObject({
      status: 1,
      stderr: `spiped: no keys in ${empty}: create one with spiped keys add\n`,
    });
    const keys = keyDirectory("alice.key");
    writeFileSync(join(keys, "alice.toml"), "\nmax-connection = 3\n");
    expect(await run(args(keys))).toMatchObject({
      status: 1,
      stderr: `spiped: ${join(keys, "alice.toml")}:2: max-connection: unknown field\n`,
    });
  });
});

describeIfInstalled("spiped")("a directory of keys", () => {
  it("warns about likely mistakes", async () => {
    const keys = keyDirectory("alice.key");
    writeFileSync(join(keys, "bob.key"), readFileSync(join(keys, "alice.key")), { mode: 0o600 });
    writeFileSync(join(keys, "carol.toml"), "max-connections = 3\n");
    const daemon = await startSpiped("ours", "-d", await freeAddress(), "[127.0.0.1]:1", keys);
    expect(daemon.stderr()).toContain(
      "spiped: keys alice and bob are identical; clients are treated as alice\n",
    );
    expect(daemon.stderr()).toContain(
      `spiped: ignoring ${join(keys, "carol.toml")}: no key with that name\n`,
    );
  });

  it("names the key whose target can't be resolved", async () => {
    const keys = keyDirectory("alice.key");
    writeFileSync(join(keys, "alice.toml"), 'target = "nowhere"\n');
    const args = ["-F", "-d", "-s", "[127.0.0.1]:1", "-t", "[127.0.0.1]:1", "-k", keys];
    const { status, stderr } = await run([...commandOf("ours", "spiped"), ...args]);
    expect(status).toBe(1);
    expect(stderr).toBe(
      "spiped: Address must contain port number: nowhere\n" +
        "spiped: Error resolving socket address for the target of key alice: nowhere\n",
    );
  });
});

describeIfInstalled("spiped", "spipe")("SIGHUP", () => {
  /** Starts a daemon with two keys, and a client with an open connection. */
  async function withConnection() {
    const keys = keyDirectory("alice.key", "bob.key");
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, keys, "--log-level", "info");
    const client = start([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, "alice.key")]);
    client.child.stdin!.write("before ");
    await until(() => client.stdout().toString() === "before ");
    const reload = async () => {
      const offset = daemon.stderr().length;
      process.kill(daemon.pid, "SIGHUP");
      await until(() => /reloaded|reload failed/.test(daemon.stderr().slice(offset)));
      return daemon.stderr().slice(offset);
    };
    return { keys, wire, daemon, client, reload };
  }

  it("adds new keys, and removes old ones together with the connections that they opened", async () => {
    const { keys, wire, daemon, client, reload } = await withConnection();
    const other = start([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, "bob.key")]);
    other.child.stdin!.write("before ");
    await until(() => other.stdout().toString() === "before ");
    writeFileSync(join(keys, "dave.key"), randomBytes(32), { mode: 0o600 });
    const alice = keyFile();
    copyFileSync(join(keys, "alice.key"), alice);
    rmSync(join(keys, "alice.key"));
    await reload();
    expect((await client.ended).status).not.toBe(0);
    await until(() => / with key alice \(.* ended after .*: key removed\n/.test(daemon.stderr()));
    expect(await runSpipe(wire, join(keys, "dave.key"))).toEqual({ status: 0, answer: "hello" });
    expect((await runSpipe(wire, alice)).status).toBe(1);
    other.child.stdin!.end("after");
    expect((await other.ended).status).toBe(0);
    expect(other.stdout().toString()).toBe("before after");
  });

  it("removes a client's last key, and the last key in the directory", async () => {
    const { keys, wire, daemon, client, reload } = await withConnection();
    rmSync(join(keys, "alice.key"));
    rmSync(join(keys, "bob.key"));
    expect(await reload()).toContain(`spiped: no keys in ${keys}: no client can connect\n`);
    expect((await client.ended).status).not.toBe(0);
    await until(() => daemon.stderr().includes(": key removed\n"));
    writeFileSync(join(keys, "bob.key"), randomBytes(32), { mode: 0o600 });
    await reload();
    expect(await runSpipe(wire, join(keys, "bob.key"))).toEqual({ status: 0, answer: "hello" });
  });

  it("allows two keys per client during a rotation, and then closes only the connections of the old one", async () => {
    const { keys, wire, daemon, client, reload } = await withConnection();
    writeFileSync(join(keys, "alice.2027.key"), randomBytes(32), { mode: 0o600 });
    expect(await reload()).toBe("spiped: reloading\nspiped: reloaded\n");
    const next = start([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, "alice.2027.key")]);
    next.child.stdin!.write("new ");
    await until(() => next.stdout().toString() === "new ");
    rmSync(join(keys, "alice.key"));
    await reload();
    expect((await client.ended).status).not.toBe(0);
    next.child.stdin!.end("key");
    expect((await next.ended).status).toBe(0);
    expect(next.stdout().toString()).toBe("new key");
    await until(() => daemon.stderr().includes(": key removed\n"));
    expect(daemon.stderr().match(/: key removed\n/g)).toHaveLength(1);
  });

  it("closes the connections of a key whose file has changed, and of one that has expired", async () => {
    const { keys, wire, daemon, client, reload } = await withConnection();
    writeFileSync(join(keys, "alice.key"), randomBytes(32));
    await reload();
    expect((await client.ended).status).not.toBe(0);
    const bob = start([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, "bob.key")]);
    bob.child.stdin!.write("x");
    await until(() => bob.stdout().toString() === "x");
    writeFileSync(join(keys, "bob.toml"), `expires = ${new Date(Date.now() + 1500).toISOString()}\n`);
    await reload();
    expect(bob.child.exitCode).toBe(null);
    expect((await bob.ended).status).not.toBe(0);
    await until(() => / with key bob \(.*: key expired\n/.test(daemon.stderr()));
    expect(daemon.stderr()).toMatch(/ with key alice \(.*: key removed\n/);
  });

  it("also closes a client that is queued for a slot when its key is removed", async () => {
    const keys = keyDirectory("alice.key", "bob.key");
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped(
      "ours",
      "-d",
      wire,
      echo.address,
      keys,
      "-n",
      "1",
      "--log-level",
      "info",
    );
    const spipe = (key: string) =>
      start([...commandOf("ours", "spipe"), "-t", wire.text, "-k", join(keys, key), "-o", "60"]);
    const first = spipe("bob.key");
    first.child.stdin!.write("x");
    await until(() => first.stdout().toString() === "x");
    const second = spipe("alice.key");
    const established = () =>
      readFileSync("/proc/net/tcp", "latin1")
        .split("\n")
        .filter(
          (line) =>
            line.includes(`:${(wire.connect as { port: number }).port.toString(16).toUpperCase()} `) &&
            / 01 /.test(line),
        );
    await until(() => established().length === 4);
    rmSync(join(keys, "alice.key"));
    // If its MAC has not arrived yet, the handshake fails instead.
    process.kill(daemon.pid, "SIGHUP");
    expect((await second.ended).status).toBe(1);
    await until(() => /: (key removed|handshake: wrong key)\n/.test(daemon.stderr()));
    expect(echo.sockets).toHaveLength(1);
  });

  it.each(["1", "2"])("closes the connections of a removed key in all processes (%s)", async (workers) => {
    const keys = keyDirectory("alice.key", "bob.key");
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped(
      ...(["ours", "-d", wire, echo.address, keys, "--log-level", "info", "--workers", workers] as const),
    );
    const clients = Array.from({ length: 6 }, () =>
      start([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, "alice.key")]),
    );
    for (const client of clients) client.child.stdin!.write("x");
    await until(() => clients.every((client) => client.stdout().toString() === "x"));
    rmSync(join(keys, "alice.key"));
    process.kill(daemon.pid, "SIGHUP");
    for (const client of clients) expect((await client.ended).status).not.toBe(0);
    await until(() => daemon.stderr().match(/: key removed\n/g)?.length === 6);
    expect(await runSpipe(wire, join(keys, "bob.key"))).toEqual({ status: 0, answer: "hello" });
  });

  it("keeps the previous configuration if a file is invalid, and logs it", async () => {
    const { keys, wire, reload } = await withConnection();
    writeFileSync(join(keys, "bob.toml"), "expires = soon\n");
    expect(await reload()).toBe(
      "spiped: reloading\n" +
        `spiped: ${join(keys, "bob.toml")}:1: invalid value\n` +
        "spiped: reload failed; keeping the previous configuration\n",
    );
    expect(await runSpipe(wire, join(keys, "bob.key"))).toEqual({ status: 0, answer: "hello" });
  });

  it("re-reads a single key file, with -e and with -d", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    const server = await startSpiped("ours", "-d", wire, echo.address, key, "--log-level", "info");
    const client = await startSpiped("ours", "-e", plain, wire, key, "--log-level", "info");
    expect(String(await exchange(plain, "old"))).toBe("old");
    const held = await connectTo(plain);
    held.write("held ");
    await once(held, "readable");
    const closed = new Promise((done) => held.resume().once("close", done));
    writeFileSync(key, randomBytes(32));
    for (const daemon of [server, client]) {
      process.kill(daemon.pid, "SIGHUP");
      await until(() => daemon.stderr().includes("reloaded"));
    }
    expect(String(await exchange(plain, "new"))).toBe("new");
    expect(await runSpipe(wire, key)).toEqual({ status: 0, answer: "hello" });
    // Its key is no longer accepted.
    await closed;
    await until(() => server.stderr().includes(": key removed\n"));
  });

  it("keeps connections that spiped -e has opened with its previous key", async () => {
    const keys = keyDirectory("alice.key", "alice.2027.key");
    const echo = await startEcho();
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    const key = keyFile();
    copyFileSync(join(keys, "alice.key"), key);
    await startSpiped("ours", "-d", wire, echo.address, keys);
    const client = await startSpiped("ours", "-e", plain, wire, key, "--log-level", "info");
    const held = await connectTo(plain);
    held.write("held ");
    await once(held, "readable");
    copyFileSync(join(keys, "alice.2027.key"), key);
    process.kill(client.pid, "SIGHUP");
    await until(() => client.stderr().includes("reloaded"));
    expect(String(await exchange(plain, "new"))).toBe("new");
    held.end("to the end");
    expect(String(await readAll(held))).toBe("held to the end");
  });

  it("keeps a key that came from standard input", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const args = ["-F", "-d", "-s", wire.text, "-t", echo.address.text, "-k", "-", "--log-level", "info"];
    const daemon = start([...commandOf("ours", "spiped"), ...args]);
    daemon.child.stdin!.end(readFileSync(key));
    await untilListening(daemon, wire);
    process.kill(daemon.pid, "SIGHUP");
    await until(() => daemon.stderr().includes("reloaded"));
    expect(await runSpipe(wire, key)).toEqual({ status: 0, answer: "hello" });
  });
});

describe("--generate-key and --check-key", () => {
  const spiped = (...args: string[]) => run([...commandOf("ours", "spiped"), ...args]);

  it("create a key with mode 0600, do not overwrite it, and print the same fingerprint", async () => {
    const file = join(temporaryDirectory(), "new.key");
    const made = await spiped("--generate-key", file);
    expect(made).toMatchObject({ status: 0, stderr: "" });
    expect(statSync(file)).toMatchObject({ size: 32, mode: 0o100600 });
    const fingerprint = /fingerprint ((?:[\da-f]{4}-){3}[\da-f]{4})\n$/.exec(String(made.stdout))![1];
    const contents = readFileSync(file);
    expect(await spiped("--generate-key", file)).toMatchObject({
      status: 1,
      stderr: `spiped: cannot write a key to ${file}: File exists\n`,
    });
    expect(readFileSync(file).equals(contents)).toBe(true);
    const checked = await spiped("--check-key", file);
    expect(checked).toMatchObject({ status: 0, stderr: "" });
    expect(String(checked.stdout)).toBe(
      `${file}: key of 32 bytes, permissions 0600, fingerprint ${fingerprint}\n`,
    );
    const fromStdin = await run([...commandOf("ours", "spiped"), "--check-key", "-"], contents);
    expect(String(fromStdin.stdout)).toBe(`-: key, fingerprint ${fingerprint}\n`);
    expect((await spiped("--check-key", keyFile())).stdout.toString()).not.toContain(fingerprint);
    const secret = Secret.fromKeyFile(contents);
    expect(Buffer.from(Secret.reveal(secret)).toString("hex")).not.toContain(
      fingerprint!.replaceAll("-", ""),
    );
  });

  it("warn about a world-readable key, as a daemon does on startup", async () => {
    const key = keyFile();
    chmodSync(key, 0o644);
    const warning = `spiped: key file ${key} is world-readable; run chmod 600 ${key}\n`;
    expect(await spiped("--check-key", key)).toMatchObject({ status: 0, stderr: warning });
    const daemon = await startSpiped("ours", "-d", await freeAddress(), "[127.0.0.1]:1", key);
    await until(() => daemon.stderr() !== "");
    expect(daemon.stderr()).toBe(warning);
  });
});
