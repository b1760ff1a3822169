/** The configuration file. */
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  commandOf,
  connectTo,
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
import { exchange, readAll, startEcho } from "../../support/servers.ts";

const SPIPED = commandOf("ours", "spiped");

/** Creates a file with these contents. */
function configFile(contents: string): string {
  const file = join(temporaryDirectory(), "spiped.toml");
  writeFileSync(file, contents);
  return file;
}

describe("--check-config", () => {
  const check = async (contents: string) => {
    const file = configFile(contents);
    const { status, stdout, stderr } = await run([...SPIPED, "--config", file, "--check-config"]);
    return {
      status,
      stdout: String(stdout).replaceAll(file, "FILE"),
      stderr: stderr.replaceAll(file, "FILE"),
    };
  };
  const good = (key: string, more = "") => `[tunnels.mail]
decrypt = true
source = "[127.0.0.1]:8025"
target = "[127.0.0.1]:25"
key = "${key}"
${more}`;

  it("reports a valid configuration", async () => {
    expect(await check(good(keyFile()))).toEqual({
      status: 0,
      stdout: "FILE: configuration OK\n",
      stderr: "",
    });
  });

  it.each([
    [
      "max-connections = -1",
      "FILE:6: tunnels.mail.max-connections: must be a whole number (0 or more), not -1",
    ],
    [
      "max-connections = 1.5",
      "FILE:6: tunnels.mail.max-connections: must be a whole number (0 or more), not 1.5",
    ],
    ['timeout = "5"', 'FILE:6: tunnels.mail.timeout: must be a number of seconds (0 or more), not "5"'],
    ["timeuot = 5", "FILE:6: tunnels.mail.timeuot: unknown field"],
    [
      'metrics = "[127.0.0.1]:9464"',
      "FILE:6: tunnels.mail.metrics: is a process setting: put it above the first table",
    ],
    ["encrypt = true", "FILE:2: tunnels.mail.decrypt: encrypt and decrypt cannot be used together"],
    ['send-proxy = "v3"', 'FILE:6: tunnels.mail.send-proxy: must be v1 or v2, not "v3"'],
    [
      'socket-mode = "999"',
      'FILE:6: tunnels.mail.socket-mode: must be permissions such as 0660, as a string, not "999"',
    ],
    ["allow = []", "FILE:6: tunnels.mail.allow: must be a string or a list of strings, not an empty list"],
    [
      'allow = "localhost"',
      'FILE:6: tunnels.mail.allow: must be an IP address, a range such as 192.0.2.0/24, or unix, not "localhost"',
    ],
    ["[tunnels.mail.keys.bob]", "mail: no key of client bob in KEY"],
    [
      '[tunnels.second]\nsource = "/s"',
      "FILE:6: tunnels.second.target: missing",
      "FILE:6: tunnels.second.key: missing",
    ],
    ["[tunnels.mail", "FILE:6: incomplete key-value: cannot find end of key"],
    [
      '[tunnels.second]\nencrypt = true\nsource = "/s"\ntarget = "/t"\nkey = "k"\n[tunnels.third]\nencrypt = true\nsource = "/s"\ntarget = "/t"\nkey = "k"',
      "FILE:13: tunnels.third.source: is already the source of tunnel second",
    ],
    [
      "weak-handshake = true\nrequire-forward-secrecy = true",
      "FILE:7: tunnels.mail.require-forward-secrecy: weak-handshake and require-forward-secrecy cannot be used together",
    ],
  ])("reports what is wrong with %s", async (line, ...complaints) => {
    const key = keyFile();
    const { status, stdout, stderr } = await check(good(key, line));
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    for (const complaint of complaints)
      expect(stderr.replaceAll(key, "KEY")).toContain(`spiped: ${complaint}`);
  });

  it.each([
    ["foreground = true", "foreground: is allowed only on the command line: --foreground"],
    ['allow = "::1"', "allow: is a tunnel setting: put it under [tunnels.NAME]"],
    ["workers = 0", "workers: must be auto or a number from 1 to 256, not 0"],
    ['log-level = "debug"', 'log-level: must be warn or info, not "debug"'],
    ['metrics-token-file = ""', "metrics-token-file: must be a file name, not an empty value"],
    ['metrics-host = "a:1"', 'metrics-host: must be a host name without a port, not "a:1"'],
    ["metrics-public = true", "metrics-public: metrics-public requires metrics"],
    ["frobnicate = 1", "frobnicate: unknown field"],
  ])("reports what is wrong with %s above the first table", async (line, complaint) => {
    expect(await check(`${line}\n${good(keyFile())}`)).toMatchObject({
      status: 1,
      stderr: `spiped: FILE:1: ${complaint}\n`,
    });
  });

  it.each([
    ['metrics = "[0.0.0.0]:9464"', "cannot serve metrics on [0.0.0.0]:9464: neither a loopback address"],
    ['metrics = "nowhere"', "Address must contain port number: nowhere"],
    ['metrics = "/m"\nmetrics-token-file = "nowhere"', "cannot read the token file "],
    ['user = "no such user"', "No such user: no such user"],
  ])("checks what the daemon needs to start: %s", async (lines, complaint) => {
    const { status, stderr } = await check(`${lines}\n${good(keyFile())}`);
    expect(status).toBe(1);
    expect(stderr).toContain(complaint);
  });

  it.each(["constructor", "__proto__", "prototype", "toString"])(
    "checks tunnels and clients named %s as any other",
    async (name) => {
      const more = `[tunnels.mail.keys.${name}]\nfoo = 1\n[tunnels.${name}]\nbar = 1`;
      const { status, stderr } = await check(good(keyFile(), more));
      expect(status).toBe(1);
      expect(stderr).toContain(`tunnels.mail.keys.${name}.foo: unknown field\n`);
      expect(stderr).toContain(`tunnels.${name}.bar: unknown field\n`);
    },
  );

  it.each(["[[tunnels]]", "tunnels = 1979-05-27"])("rejects what is not a table: %s", async (line) => {
    const { stderr } = await check(line);
    expect(stderr).toMatch(/^spiped: FILE:1: tunnels: must be a table, not a (list|date)\n$/);
  });

  it("reports the lines of the first problems of a long file, and the number of the others", async () => {
    const tunnels = Array.from({ length: 300 }, (_, i) => `[tunnels.t${i}]\nfoo = 1\n`).join("");
    const { stderr } = await check(tunnels);
    const lines = stderr.trimEnd().split("\n");
    expect(lines).toHaveLength(21);
    expect(lines).toContain("spiped: FILE:2: tunnels.t0.foo: unknown field");
    expect(lines.at(-1)).toMatch(/^spiped: FILE: and \d+ more problems$/);
  });

  it.each([
    ["source", "", "mail: -s requires an address|mail: Empty socket address"],
    ["target", "nosuch.invalid:1", "mail: Error looking up nosuch.invalid: "],
    ["key", "nowhere.key", "mail: Cannot open file: "],
  ])("names the tunnel with an invalid %s", async (field, value, complaint) => {
    const fields = { source: "/s", target: "/t", key: keyFile(), [field]: value };
    const text = Object.entries(fields).map(([name, of]) => `${name} = "${of}"\n`);
    const { status, stderr } = await check(`[tunnels.mail]\ndecrypt = true\n${text.join("")}`);
    expect(status).toBe(1);
    expect(stderr).toMatch(new RegExp(`^spiped: (${complaint})`));
  });

  it("reports a missing file, and a file without tunnels", async () => {
    expect(await run([...SPIPED, "--config", "/nowhere.toml"])).toMatchObject({
      status: 1,
      stderr: "spiped: cannot read /nowhere.toml: No such file or directory\n",
    });
    expect(await check("[tunnels]")).toMatchObject({
      status: 1,
      stderr: "spiped: FILE:1: tunnels: must have at least one tunnel\n",
    });
  });

  it.each([["-s", "/s"], ["-e"], ["--send-proxy", "v1"]])(
    "rejects tunnel options on the command line: %s",
    async (...options) => {
      const { status, stderr } = await run([...SPIPED, "--config", "/nowhere.toml", ...options]);
      expect(status).toBe(1);
      expect(stderr).toMatch(
        /spiped: --(source|encrypt|send-proxy) cannot be used with --config; set it in the file\n$/,
      );
    },
  );
});

describeIfInstalled("spiped")("--config", () => {
  it("runs all tunnels of a file, and changes them on SIGHUP without closing connections", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const [first, second, third] = [await freeAddress(), await freeAddress("UNIX"), await freeAddress()];
    const tunnel = (name: string, source: string, mode: string, target: string) =>
      `[tunnels.${name}]\n${mode} = true\nsource = "${source}"\ntarget = "${target}"\nkey = "${key}"\n`;
    const file = configFile(
      tunnel("one", first.text, "decrypt", echo.address.text) +
        tunnel("two", second.text, "encrypt", first.text),
    );
    const daemon = start([...SPIPED, "-F", "--config", file, "--log-level", "info"]);
    await untilListening(daemon, first);
    await untilListening(daemon, second);
    expect(String(await exchange(second, "through both"))).toBe("through both");
    await until(() => /spiped: one: connection 1 from /.test(daemon.stderr()));

    const held = await connectTo(second);
    held.write("held ");
    await once(held, "readable");
    writeFileSync(
      file,
      tunnel("one", first.text, "decrypt", echo.address.text) +
        tunnel("three", third.text, "encrypt", first.text),
    );
    process.kill(daemon.pid, "SIGHUP");
    await until(() => daemon.stderr().includes("reloaded"));
    await until(() => !existsSync(second.text));
    expect(String(await exchange(third, "the new one"))).toBe("the new one");
    held.end("to the end");
    expect(String(await readAll(held))).toBe("held to the end");
    // Tarsnap's client can use one of them, too.
    const plain = await freeAddress();
    await startSpiped("c", "-e", plain, first, key);
    expect(String(await exchange(plain, "from outside"))).toBe("from outside");

    const taken = await freeAddress();
    const blocker = await startEcho();
    writeFileSync(
      file,
      readFileSync(file, "utf8") +
        tunnel("four", blocker.address.text, "encrypt", first.text) +
        tunnel("five", taken.text, "encrypt", first.text),
    );
    process.kill(daemon.pid, "SIGHUP");
    await until(() => daemon.stderr().includes("reload failed"));
    expect(daemon.stderr()).toContain(
      `spiped: four: Error binding socket ${blocker.address.text}: Address already in use\nspiped: four: ${blocker.address.text} is in use`,
    );
    expect(isListening(taken)).toBe(false);
    expect(String(await exchange(third, "still there"))).toBe("still there");
  });

  it("resolves relative paths from the file's directory, and names the pid file after the file", async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, "mail.key"), "secret", { mode: 0o600 });
    const file = join(directory, "spiped.toml");
    writeFileSync(
      file,
      `[tunnels.mail]\ndecrypt = true\nsource = "${join(directory, "s")}"\ntarget = "[127.0.0.1]:1"\nkey = "mail.key"\n`,
    );
    expect(await run([...SPIPED, "--config", file], "", { stdio: "ignore" })).toMatchObject({ status: 0 });
    const pid = Number(readFileSync(`${file}.pid`, "utf8"));
    process.kill(pid, "SIGTERM");
    await until(() => !existsSync(`${file}.pid`));
  });

  it("has the settings of the process, which the command line overrides", async () => {
    const directory = temporaryDirectory();
    const source = join(directory, "s");
    const metrics = join(directory, "metrics.sock");
    const tunnel = `[tunnels.mail]\ndecrypt = true\nsource = "${source}"\ntarget = "[127.0.0.1]:1"\nkey = "${keyFile()}"\n`;
    const file = join(directory, "spiped.toml");
    const settings = (level: string) =>
      `log-level = "${level}"\nlog-format = "json"\nmetrics = "${metrics}"\nworkers = 2\n${tunnel}`;
    writeFileSync(file, settings("info"));
    const daemon = start([...SPIPED, "-F", "--config", file, "--log-format", "text"]);
    await untilListening(daemon, { text: source, connect: { path: source } });
    await until(() => existsSync(metrics));
    await until(() => daemon.stderr().includes("spiped: mail: listening on "));
    const { stdout } = await run(["pgrep", "-P", String(daemon.pid)]);
    expect(String(stdout).trim().split("\n")).toHaveLength(2);

    writeFileSync(file, settings("warn"));
    process.kill(daemon.pid, "SIGHUP");
    await until(() => daemon.stderr().includes("reloaded"));
    await until(() => daemon.stderr().includes("spiped: log-level has changed: restart to apply it\n"));
    expect(daemon.stderr()).not.toContain("log-format has changed");
  });

  it("has paths of the process relative to its directory", async () => {
    const directory = temporaryDirectory();
    const file = join(directory, "spiped.toml");
    writeFileSync(
      file,
      `pid-file = "run.pid"\nwait-for-dns = true\n[tunnels.mail]\ndecrypt = true\nsource = "${join(directory, "s")}"\ntarget = "nosuch.invalid:1"\nkey = "${keyFile()}"\n`,
    );
    expect(await run([...SPIPED, "--config", file], "", { stdio: "ignore" })).toMatchObject({ status: 0 });
    const pidFile = join(directory, "run.pid");
    process.kill(Number(readFileSync(pidFile, "utf8")), "SIGTERM");
    await until(() => !existsSync(pidFile));
  });
});
