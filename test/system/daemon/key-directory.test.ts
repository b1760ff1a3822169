/** Which files are keys, in a directory and alone. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { IGNORED_FILES, REJECTED_KEYS } from "../../support/key-directory-files.ts";
import { withoutLifecycleLines } from "../../support/log-lines.ts";
import {
  cleanUp,
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
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { startEcho } from "../../support/servers.ts";

const SPIPED = commandOf("ours", "spiped");
const write = (path: string, contents: string | Buffer) => writeFileSync(path, contents, { mode: 0o600 });
const times = (daemon: Running, text: string) => daemon.stderr().split(text).length - 1;

async function reload(daemon: Running) {
  const before = times(daemon, "reloaded");
  process.kill(daemon.pid, "SIGHUP");
  await until(() => times(daemon, "reloaded") > before);
}

describeIfInstalled("spipe")("a directory of keys", () => {
  it("uses NAME.key only, warns about every other file once with the reason, and rejects short keys", async () => {
    const keys = temporaryDirectory();
    write(join(keys, "alice.key"), randomBytes(32));
    write(join(keys, ".hidden"), randomBytes(32));
    for (const [file, [contents]] of Object.entries({ ...IGNORED_FILES, ...REJECTED_KEYS }))
      write(join(keys, file), contents);
    mkdirSync(join(keys, "old.key"));
    execFileSync("mkfifo", [join(keys, "fifo.key")]);
    const socket = createServer().listen(join(keys, "socket.key"));
    cleanUp(() => void socket.close());
    const echo = await startEcho();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, echo.address, keys, "--log-level", "info");
    const ask = async (file: string) =>
      (await run([...commandOf("ours", "spipe"), "-t", wire.text, "-k", file], "hello")).stdout.toString();

    for (let round = 1; round <= 3; round += 1) {
      expect(await ask(join(keys, "alice.key"))).toBe("hello");
      for (const [file, [contents]] of Object.entries({ ...IGNORED_FILES, ...REJECTED_KEYS })) {
        // spipe rejects an empty key file itself.
        if (contents.length > 0) expect(await ask(join(keys, file)), file).toBe("");
      }
      if (round < 3) await reload(daemon);
    }
    for (const [file, [, why]] of Object.entries(IGNORED_FILES))
      expect(times(daemon, `spiped: ignoring ${join(keys, file)}: ${why}\n`), file).toBe(1);
    for (const file of ["old.key", "fifo.key", "socket.key"])
      expect(times(daemon, `spiped: ignoring ${join(keys, file)}: it is not a regular file\n`)).toBe(1);
    for (const [file, [, why]] of Object.entries(REJECTED_KEYS))
      expect(times(daemon, `spiped: rejecting ${join(keys, file)}: ${why}\n`), file).toBe(3);
    expect(daemon.stderr()).not.toContain("hidden");
    expect(echo.sockets).toHaveLength(3);
  });
});

describe("a directory of keys", () => {
  it("can be reloaded during rotation", async () => {
    const keys = temporaryDirectory();
    write(join(keys, "alice.key"), randomBytes(32));
    write(join(keys, "bob.key"), randomBytes(32));
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, "[127.0.0.1]:1", keys, "--log-level", "info");
    const script = 'while :; do head -c 32 /dev/urandom > "$0/new.key"; mv "$0/new.key" "$0/alice.key"; done';
    const rotating = start(["bash", "-c", script, keys]);
    for (let i = 0; i < 30; i += 1) await reload(daemon);
    rotating.child.kill("SIGKILL");
    await rotating.ended;
    expect(daemon.stderr()).not.toContain("reload failed");
    expect(daemon.stderr()).not.toContain("No such file");
  });

  it("makes --check-config fail if one of its keys is rejected", async () => {
    const keys = temporaryDirectory();
    write(join(keys, "alice.key"), randomBytes(32));
    write(join(keys, "bob.key"), "");
    const file = join(temporaryDirectory(), "spiped.toml");
    write(
      file,
      `[tunnels.mail]\ndecrypt = true\nsource = "[127.0.0.1]:1"\ntarget = "[127.0.0.1]:1"\nkey = "${keys}"\n`,
    );
    const { status, stdout, stderr } = await run([...SPIPED, "--config", file, "--check-config"]);
    expect(status).toBe(1);
    expect(stdout.toString()).toBe("");
    expect(stderr).toMatch(/^spiped: mail: rejecting \S+bob\.key: it is empty; [^\n]+\n$/);
  });

  it("may lose a key for which the configuration file has settings", async () => {
    const keys = temporaryDirectory();
    for (const name of ["alice", "bob"]) write(join(keys, `${name}.key`), randomBytes(32));
    const wire = await freeAddress();
    const file = join(temporaryDirectory(), "spiped.toml");
    write(
      file,
      `[tunnels.mail]\ndecrypt = true\nsource = "${wire.text}"\ntarget = "[127.0.0.1]:1"\nkey = "${keys}"\n[tunnels.mail.keys.bob]\nmax-connections = 1\n`,
    );
    const daemon = start([...SPIPED, "-F", "--config", file, "--log-level", "info"]);
    await untilListening(daemon, wire);
    rmSync(join(keys, "bob.key"));
    await reload(daemon);
    expect(withoutLifecycleLines(daemon.stderr())).toBe(`spiped: mail: no key of client bob in ${keys}\n`);
  });
});

describe("a key file", () => {
  const ARGS = ["-F", "-d", "-s", "[127.0.0.1]:1", "-t", "[127.0.0.1]:1", "-k"];

  it.each(["spiped", "spipe"] as const)("that is empty is rejected by %s", async (program) => {
    const key = keyFile();
    writeFileSync(key, "");
    const args = program === "spiped" ? ARGS : ["-t", "[127.0.0.1]:1", "-k"];
    for (const path of [key, "/dev/null"]) {
      expect(await run([...commandOf("ours", program), ...args, path])).toMatchObject({
        status: 1,
        stderr:
          `${program}: no key in ${path}: it is empty\n` +
          `${program}: Error reading shared secret\n` +
          `${program}: create a key with spiped --generate-key\n`,
      });
    }
    const { status, stderr } = await run([...commandOf("ours", program), ...args, "-"], "");
    expect(status).toBe(1);
    expect(stderr).toContain(`${program}: no key in standard input: it is empty\n`);
  });

  it("that is short is used, with a warning that explains how to make a better one", async () => {
    const key = keyFile();
    writeFileSync(key, "password");
    const warning =
      `spiped: key in ${key} has only 8 bytes and could be guessed; ` +
      "create one of 32 random bytes with spiped --generate-key\n";
    const daemon = await startSpiped("ours", "-d", await freeAddress(), "[127.0.0.1]:1", key);
    expect(daemon.stderr()).toBe(warning);
    expect((await run([...SPIPED, "--check-key", key])).stderr).toBe(warning);
  });
});

describe("a name with unprintable characters", () => {
  const NAMES = ["a\nspiped: forged", "a\u001b[2J", "a\u202egnp", "a\u2028b", "a\u200bb", "a\u0085b"];
  const RAW = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b\u202e\u2028]/;

  it.each(["text", "json"])("is rejected for a key, and escaped in the warning (%s)", async (format) => {
    const keys = temporaryDirectory();
    write(join(keys, "alice.key"), randomBytes(32));
    for (const name of NAMES) write(join(keys, `${name}.key`), randomBytes(32));
    const daemon = await startSpiped(
      ...(["ours", "-d", await freeAddress(), "[127.0.0.1]:1", keys, "--log-format", format] as const),
    );
    await untilWarned(daemon);
    expect(daemon.stderr()).not.toMatch(RAW);
    expect(daemon.stderr().trim().split("\n")).toHaveLength(NAMES.length);
    for (const shown of ["\\u{a}", "\\u{1b}", "\\u{202e}", "\\u{2028}", "\\u{200b}", "\\u{85}"])
      expect(daemon.stderr().replaceAll("\\\\", "\\")).toContain(shown);
  });

  /** Waits until the daemon has logged a warning for each file. */
  async function untilWarned(daemon: Running) {
    await until(() => times(daemon, "unprintable characters") >= NAMES.length);
  }

  it.each(NAMES)("is rejected for a tunnel: %j", async (name) => {
    const file = join(temporaryDirectory(), "spiped.toml");
    const key = keyFile();
    write(
      file,
      `\n[tunnels.${JSON.stringify(name).replace("\u0085", "\\u0085")}]\ndecrypt = true\nsource = "[127.0.0.1]:1"\ntarget = "[127.0.0.1]:1"\nkey = "${key}"\n`,
    );
    const { status, stderr } = await run([...SPIPED, "--config", file, "--check-config"]);
    expect(status).toBe(1);
    expect(stderr).toContain(`spiped: ${file}:2: tunnels.a`);
    expect(stderr).toContain(": must be a name of printable characters\n");
    expect(stderr).not.toMatch(RAW);
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });
});
