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
    ["max-connections = -1", "FILE:6: tunnels.mail.max-connections: must not be negative"],
    ["max-connections = 1.5", "FILE:6: tunnels.mail.max-connections: must be a whole number"],
    ['timeout = "5"', 'FILE:6: tunnels.mail.timeout: must be a number, not "5"'],
    ["timeuot = 5", "FILE:6: tunnels.mail.timeuot: there is no such field"],
    [
      'metrics = "[127.0.0.1]:9464"',
      "FILE:6: tunnels.mail.metrics: is an option of the command line, not a field of this file: --metrics ADDR",
    ],
    ["encrypt = true", "FILE:2: tunnels.mail.decrypt: either encrypt or decrypt must be true"],
    ['send-proxy = "v3"', 'FILE:6: tunnels.mail.send-proxy: must be "v1" or "v2"'],
    ['socket-mode = "999"', 'FILE:6: tunnels.mail.socket-mode: must be a string such as "0660"'],
    ["allow = []", "FILE:6: tunnels.mail.allow: must not be empty"],
    [
      'allow = "localhost"',
      "mail: allow: not an IP address, a range such as 192.0.2.0/24, or unix: localhost",
    ],
    ["[tunnels.mail.keys.bob]", "mail: There is no key bob in KEY"],
    [
      '[tunnels.second]\nsource = "/s"',
      "FILE:6: tunnels.second.target: is missing",
      "FILE:6: tunnels.second.key: is missing",
    ],
    ["[tunnels.mail", "FILE:6: incomplete key-value: cannot find end of key"],
    [
      '[tunnels.second]\nencrypt = true\nsource = "/s"\ntarget = "/t"\nkey = "k"\n[tunnels.third]\nencrypt = true\nsource = "/s"\ntarget = "/t"\nkey = "k"',
      "FILE:13: tunnels.third.source: is that of tunnel second already",
    ],
    [
      "weak-handshake = true\nrequire-forward-secrecy = true",
      "FILE:7: tunnels.mail.require-forward-secrecy: excludes weak-handshake",
    ],
  ])("reports what is wrong with %s", async (line, ...complaints) => {
    const key = keyFile();
    const { status, stdout, stderr } = await check(good(key, line));
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    for (const complaint of complaints)
      expect(stderr.replaceAll(key, "KEY")).toContain(`spiped: ${complaint}`);
  });

  it.each([
    ['metrics = "[127.0.0.1]:9464"', "metrics", "--metrics ADDR"],
    ["foreground = true", "foreground", "--foreground"],
  ])("names the option for a setting that the file can't have: %s", async (line, field, option) => {
    expect(await check(`${line}\n${good(keyFile())}`)).toMatchObject({
      status: 1,
      stderr: `spiped: FILE:1: ${field}: is an option of the command line, not a field of this file: ${option}\n`,
    });
  });

  it.each([
    ["source", "", "mail: -s needs an address|mail: Empty socket address"],
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
      stderr: "spiped: Cannot read /nowhere.toml: No such file or directory\n",
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
      expect(stderr).toMatch(/spiped: --(source|encrypt|send-proxy) belongs into the file of --config\n$/);
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
});
