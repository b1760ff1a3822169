/** `spiped keys`: the commands that make, list, change and remove the keys of a directory. */
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { fingerprint } from "../../../src/protocol/fingerprint.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import { commandOf, run, temporaryDirectory } from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

const PRINT = /(?:[\da-f]{4}-){3}[\da-f]{4}/;
const DAY = new Date().toISOString().slice(0, 10);

async function keys(...args: string[]) {
  const { status, stdout, stderr } = await run([...commandOf("ours", "spiped"), "keys", ...args]);
  return { status, stdout: stdout.toString(), stderr };
}

async function json(...args: string[]) {
  const { status, stdout } = await keys(...args, "--json");
  expect(status).toBe(0);
  return JSON.parse(stdout);
}

/** Creates a directory with valid key files of these names. */
function directoryWith(...files: string[]): string {
  const directory = temporaryDirectory();
  for (const file of files) writeFileSync(join(directory, file), randomBytes(32), { mode: 0o600 });
  return directory;
}

const printOf = (directory: string, file: string) =>
  fingerprint(Secret.fromKeyFile(readFileSync(join(directory, file))));

describe("spiped keys", () => {
  it("add creates a key with mode 0600, and does not overwrite a file", async () => {
    const directory = temporaryDirectory();
    const { status, stdout, stderr } = await keys("add", directory, "alice");
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const path = join(directory, "alice.key");
    expect(stdout).toBe(
      `${path}: new key of 32 bytes, fingerprint ${printOf(directory, "alice.key")}\n` +
        "Next:\n" +
        `  1. Copy ${path} to alice over a secure channel.\n` +
        "  2. Send the daemon SIGHUP, or run systemctl reload: it then accepts the key.\n",
    );
    expect(statSync(path)).toMatchObject({ size: 32, mode: 0o100600, nlink: 1 });
    expect(readdirSync(directory)).toEqual(["alice.key"]);
    const before = readFileSync(path);
    expect(await keys("add", directory, "alice")).toMatchObject({
      status: 1,
      stdout: "",
      stderr:
        `spiped: alice already has a key in ${directory}\n` +
        `spiped: to add another: spiped keys rotate ${directory} alice\n`,
    });
    // An existing path that is not a key is not overwritten either.
    mkdirSync(join(directory, "bob.key"));
    expect((await keys("add", directory, "bob")).stderr).toBe(
      `spiped: ${join(directory, "bob.key")} exists\n`,
    );
    expect(readFileSync(path).equals(before)).toBe(true);
    expect(readdirSync(directory).sort()).toEqual(["alice.key", "bob.key"]);
  });

  it("rotate adds a key in addition to the old one and prints the revoke command that removes that", async () => {
    const directory = directoryWith("alice.key", "bob.key");
    const old = printOf(directory, "alice.key");
    const { status, stdout, stderr } = await keys("rotate", directory, "alice");
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const file = `alice.${DAY}.key`;
    expect(stdout).toContain(`fingerprint ${printOf(directory, file)}\n`);
    const finish = /spiped keys revoke (\S+) (\S+)\n/.exec(stdout)!;
    expect(finish.slice(1)).toEqual([directory, "alice.key"]);
    expect(statSync(join(directory, file))).toMatchObject({ size: 32, mode: 0o100600 });
    await keys("rotate", directory, "alice");
    expect(readdirSync(directory).sort()).toEqual([`alice.${DAY}.2.key`, file, "alice.key", "bob.key"]);

    expect(await keys("revoke", directory, "alice.key")).toEqual({
      status: 0,
      stderr: "",
      stdout:
        `${join(directory, "alice.key")}: removed, fingerprint ${old}\n` +
        "Next:\n  1. Send the daemon SIGHUP, or run systemctl reload: it then closes the connections opened with this key.\n",
    });
    expect(readdirSync(directory).sort()).toEqual([`alice.${DAY}.2.key`, file, "bob.key"]);
  });

  it("revoke accepts a file, a fingerprint, or a name that has only one key", async () => {
    const directory = directoryWith("alice.key", "alice.2027.key", "bob.key", "carol.key");
    writeFileSync(join(directory, "empty.key"), "");
    const several = await keys("revoke", directory, "alice");
    expect(several.status).toBe(1);
    expect(several.stderr.split("\n")).toEqual([
      "spiped: alice matches 2 keys; choose one:",
      `spiped: spiped keys revoke ${directory} alice.2027.key   (${printOf(directory, "alice.2027.key")})`,
      `spiped: spiped keys revoke ${directory} alice.key   (${printOf(directory, "alice.key")})`,
      "",
    ]);
    const removed = await json("revoke", directory, printOf(directory, "alice.2027.key"));
    expect(removed.removed).toMatchObject({ name: "alice", file: "alice.2027.key" });
    const last = await keys("revoke", directory, "bob");
    expect(last.stdout).toContain("bob has no keys left. bob.toml, if it exists, applies again");
    expect((await keys("revoke", directory, "empty.key")).status).toBe(0);
    for (const other of ["dave", "../carol.key", "carol.toml", ""]) {
      expect((await keys("revoke", directory, other)).stderr).toMatch(/^spiped: no key .* in /);
    }
    expect(readdirSync(directory).sort()).toEqual(["alice.key", "carol.key"]);
  });

  it("list and show print name, fingerprint, age, expiry, restrictions and problems", async () => {
    const directory = directoryWith("alice.key", "alice.2027.key", "bob.key", "bob.key.bak");
    writeFileSync(join(directory, "alice.toml"), 'max-connections = 3\ntarget = ["[127.0.0.1]:25", "/s"]\n');
    writeFileSync(join(directory, "bob.toml"), "expires = 2020-01-31\n");
    writeFileSync(join(directory, "short.key"), "short", { mode: 0o600 });
    const threeDaysAgo = Date.now() / 1000 - 3.5 * 24 * 3600;
    utimesSync(join(directory, "bob.key"), threeDaysAgo, threeDaysAgo);
    const { status, stdout, stderr } = await keys("list", directory);
    expect(status).toBe(0);
    const rows = stdout
      .trimEnd()
      .split("\n")
      .map((line) => line.split(/ {2,}/));
    const restrictions = "max-connections 3, target [127.0.0.1]:25 /s";
    expect(rows).toEqual([
      ["NAME", "FINGERPRINT", "AGE", "EXPIRES", "RESTRICTIONS", "FILE"],
      ["alice", printOf(directory, "alice.2027.key"), "0 min", "never", restrictions, "alice.2027.key"],
      ["alice", printOf(directory, "alice.key"), "0 min", "never", restrictions, "alice.key"],
      ["bob", printOf(directory, "bob.key"), "3 days", "2020-01-31 (expired)", "none", "bob.key"],
    ]);
    expect(stderr.trim().split("\n").sort()).toEqual([
      `spiped: ignoring ${join(directory, "bob.key.bak")}: only files named NAME.key are keys`,
      `spiped: rejecting ${join(directory, "short.key")}: it has 5 bytes; a key needs at least 16; create one with spiped keys`,
    ]);

    const shown = await json("show", directory, "bob");
    expect(shown).toEqual({
      directory,
      keys: [
        {
          name: "bob",
          file: "bob.key",
          fingerprint: printOf(directory, "bob.key"),
          bytes: 32,
          permissions: "0600",
          modified: expect.stringMatching(/^20.*Z$/),
          expires: "2020-01-31T00:00:00.000Z",
          expired: true,
          max_connections: null,
          target: null,
        },
      ],
      problems: [],
    });
    const all = await json("list", directory);
    expect(all.keys).toHaveLength(3);
    expect(all.keys[0]).toMatchObject({
      max_connections: 3,
      target: ["[127.0.0.1]:25", "/s"],
      expired: false,
    });
    expect(all.problems.map(({ kind }: { kind: string }) => kind).sort()).toEqual(["ignored", "refused"]);
    expect((await keys("show", directory, "dave")).stderr).toBe(`spiped: no key of dave in ${directory}\n`);
  });

  it("reports invalid settings of a client, and processes the other keys", async () => {
    const directory = directoryWith("alice.key", "bob.key");
    writeFileSync(join(directory, "alice.toml"), "max_connections = 3\n");
    const complaint = `spiped: ${join(directory, "alice.toml")}:1: max_connections: unknown field\n`;
    const listed = await keys("list", directory);
    expect(listed).toMatchObject({ status: 0, stderr: complaint });
    expect(listed.stdout).toMatch(/^alice .* unknown +unknown +alice\.key\nbob .* never +none +bob\.key\n$/m);
    expect((await json("list", directory)).problems).toEqual([
      { file: "alice.toml", kind: "settings", message: expect.stringContaining("max_connections") },
    ]);
    expect((await json("show", directory, "alice")).problems).toHaveLength(1);
    expect(await keys("revoke", directory, "bob")).toMatchObject({ status: 0, stderr: complaint });
    expect(readdirSync(directory).sort()).toEqual(["alice.key", "alice.toml"]);
  });

  it("leaves no partial key file if writing fails, and creates key files atomically", async () => {
    const directory = directoryWith();
    const missing = join(directory, "missing");
    expect(await keys("add", missing, "alice")).toMatchObject({
      status: 1,
      stderr: `spiped: cannot read ${missing}: No such file or directory\n`,
    });
    const long = "x".repeat(252);
    expect(await keys("add", directory, long)).toMatchObject({ status: 1 });
    expect(readdirSync(directory)).toEqual([]);
    // Concurrent commands: each file is complete when it gets its name, and only one command gets the name.
    const made = await Promise.all(Array.from({ length: 4 }, () => keys("add", directory, "alice")));
    expect(made.map(({ status }) => status).sort()).toEqual([0, 1, 1, 1]);
    const winner = made.find(({ status }) => status === 0)!;
    expect(PRINT.exec(winner.stdout)![0]).toBe(printOf(directory, "alice.key"));
    expect(readdirSync(directory)).toEqual(["alice.key"]);
  });

  it.each(["", "a.b", "../a", "a/b", "-a", ".", "a\nb", "a\u202eb"])("rejects %j as a name", async (name) => {
    const directory = directoryWith();
    const { status, stderr } = await keys("add", directory, "--", name);
    expect(status).toBe(1);
    expect(stderr).toContain(": it must not contain a dot, ");
    expect(stderr.trimEnd()).not.toMatch(/[\n\u202e]/);
    expect(readdirSync(directory)).toEqual([]);
  });

  it("--help prints the usage, and so does an invalid command line, with the error", async () => {
    for (const option of ["--help", "-h"]) {
      const { status, stdout, stderr } = await keys(option);
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
      expect(stdout).toMatch(/^usage: spiped keys list/);
    }
    for (const [args, hint] of [
      [[], "missing command"],
      [["frobnicate", "d"], "unknown command 'frobnicate'"],
      [["toString", "d"], "unknown command 'toString'"],
      [["lsit", "d"], "unknown command 'lsit' (Did you mean list?)"],
      [["list"], "missing required argument 'directory'"],
      [["add", "d"], "missing required argument 'name'"],
      [["revoke", "d"], "missing required argument 'key'"],
      [["list", "d", "alice"], "too many arguments for 'list'"],
      [["add", "d", "alice", "bob"], "too many arguments for 'add'"],
      [["list", "d", "--frobnicate"], "unknown option '--frobnicate'"],
    ] as const) {
      const { status, stdout, stderr } = await keys(...args);
      expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
      expect(stderr).toMatch(/^usage: spiped keys list/);
      expect(stderr).toContain(`spiped: ${hint}`);
    }
  });
});

describeIfInstalled("root")("spiped keys, as root", () => {
  const chowned = (path: string, mode: number) => {
    chownSync(path, 0, 65534);
    chmodSync(path, mode);
  };

  it("prints how to make the new key readable to the daemon's user, if that can read the other keys", async () => {
    const directory = directoryWith("alice.key");
    chowned(join(directory, "alice.key"), 0o640);
    const path = join(directory, "bob.key");
    const { added, next } = await json("add", directory, "bob");
    expect(added).toMatchObject({ name: "bob", file: "bob.key" });
    expect(next[0]).toBe(
      `Only user 0 can read ${path}, unlike ${join(directory, "alice.key")}. If the daemon runs as another user: ` +
        `chown 0:65534 ${path} && chmod 0640 ${path}`,
    );
    expect(statSync(path)).toMatchObject({ uid: 0, gid: 0, mode: 0o100600 });
  });

  it("prints it if that can read the directory, and otherwise does not", async () => {
    const directory = directoryWith();
    chowned(directory, 0o750);
    const { next } = await json("add", directory, "alice");
    expect(next[0]).toContain(`unlike ${directory}. `);
    chownSync(directory, 0, 0);
    chmodSync(directory, 0o755);
    rmSync(join(directory, "alice.key"));
    expect((await json("add", directory, "alice")).next[0]).toMatch(/^Copy /);
    expect((await json("add", directory, "bob")).next[0]).toMatch(/^Copy /);
  });
});

describeIfInstalled("spiped")("a command line that starts with the word keys", () => {
  it("is rejected by Tarsnap's spiped", async () => {
    const { status, stderr } = await run(["spiped", "keys", "list", temporaryDirectory()]);
    expect(status).toBe(1);
    expect(stderr).toContain("usage: spiped");
  });
});
