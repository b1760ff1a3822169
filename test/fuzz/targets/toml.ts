/**
 * The configuration file and the settings of a client. The input is the file.
 *
 * A file is either accepted, and then all its settings are in range, or rejected with an error of our class whose lines
 * name the file. A tunnel whose addresses need no lookup and whose key exists gets a plan, or an error of our class.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readClientSettings } from "../../../src/config/client-settings-file.ts";
import { readConfig } from "../../../src/config/config.ts";
import { ConfigError, UsageError } from "../../../src/config/config-error.ts";
import { planTunnel } from "../../../src/config/make-plan.ts";
import { TUNNEL_OPTIONS } from "../../../src/config/options.ts";
import type { ProcessSettings } from "../../../src/config/process-settings.ts";
import type { ClientSettings, TunnelSettings } from "../../../src/config/tunnel-settings.ts";
import { AddressError, parseAddress, parseBindAddress } from "../../../src/net/address.ts";
import { check, type FuzzTarget } from "../target.ts";

const MINIMAL = `[tunnels.a]
decrypt = true
source = "[127.0.0.1]:8025"
target = "[127.0.0.1]:25"
key = "key"
`;

const FULL = `user = "nobody"
workers = 2
log-level = "info"
log-format = "json"
metrics = "[127.0.0.1]:9464"
metrics-host = ["a.example.org", "b"]
drain-timeout = 1.5
pid-file = "x.pid"

[tunnels.mail]
decrypt = true
source = "[127.0.0.1]:8025"
target = ["[127.0.0.1]:25", "/run/mail"]
key = "keys"
max-connections = 10
timeout = 2.5
allow = ["192.0.2.0/24", "unix"]
send-proxy = "v2"
[tunnels.mail.keys.alice]
target = "[127.0.0.1]:2525"
max-connections = 2
expires = 2030-01-31

[tunnels."b c"]
encrypt = true
source = "/tmp/socket"
socket-mode = "0660"
target = "[::1]:25"
bind = "[::1]"
key = "key"
resolve-interval = 10
idle-timeout = 60
`;

const CLIENT = `target = ["[127.0.0.1]:25"]
max-connections = 3
expires = 2030-01-31T12:00:00Z
`;

/** A long value with an error after it, whose line must be found. */
const LONG = `[tunnels.a]\nx = """${"\n".repeat(5000)}"""\ny = [\n${'"",\n'.repeat(500)}]\n`;

/** Checks that a time is not negative, in ms. */
const isTime = (value: number | undefined) => value === undefined || value >= 0;

/** Checks that a count is a whole number of at least one, or no limit. */
const isCount = (value: number | undefined) =>
  value === undefined || value === Number.POSITIVE_INFINITY || (Number.isSafeInteger(value) && value > 0);

function checkClient({ maxConnections, expires, targets }: ClientSettings): void {
  check(isCount(maxConnections), "a limit is out of range", maxConnections);
  check(expires === undefined || !Number.isNaN(expires.getTime()), "a date is not valid");
  check(targets === undefined || targets.length > 0, "a list of targets is empty");
}

function checkTunnel(settings: TunnelSettings): void {
  const { name, encrypt, decrypt, source, target, key, clients } = settings;
  check(name !== undefined && name !== "", "a tunnel has no name");
  check(encrypt !== decrypt, "a tunnel has no mode, or two");
  check(
    [source, key, ...target].every((text) => typeof text === "string"),
    "a required setting is missing",
  );
  check(target.length > 0, "a tunnel has no target");
  check(isCount(settings.maxConnections), "a limit is out of range", settings.maxConnections);
  for (const time of [settings.timeout, settings.resolveInterval, settings.idleTimeout])
    check(isTime(time) && time > 0, "a time is out of range", time);
  const { socketMode = 0 } = settings;
  check(
    Number.isInteger(socketMode) && socketMode >= 0 && socketMode <= 0o777,
    "a mode is out of range",
    socketMode,
  );
  for (const client of clients?.values() ?? []) checkClient(client);
}

function checkProcess({ workers, drainTimeout, logLevel }: ProcessSettings): void {
  check(
    workers === "auto" || (Number.isInteger(workers) && workers >= 1 && workers <= 256),
    "workers",
    workers,
  );
  check(isTime(drainTimeout) && drainTimeout > 0, "a time is out of range", drainTimeout);
  check(["warn", "info"].includes(logLevel), "a level is unknown", logLevel);
}

/** Returns true if all addresses of a tunnel can be resolved without a lookup, or are rejected without one. */
function needsNoLookup({ source, target, failoverTarget, bind, clients }: TunnelSettings): boolean {
  const isName = (text: string, parse = parseAddress) => {
    try {
      return parse(text).kind === "name";
    } catch (error) {
      if (error instanceof AddressError) return false;
      throw error;
    }
  };
  const targets = [...(clients?.values() ?? [])].flatMap((client) => client.targets ?? []);
  const all = [source, ...target, ...(failoverTarget ?? []), ...targets];
  return !all.some((text) => isName(text)) && !(bind !== undefined && isName(bind, parseBindAddress));
}

export function makeTarget(): FuzzTarget {
  const directory = mkdtempSync(join(tmpdir(), "spiped-fuzz-"));
  const file = join(directory, "spiped.toml");
  const keys = new Map([
    ["key", join(directory, "key")],
    ["keys", join(directory, "keys")],
  ]);
  writeFileSync(keys.get("key")!, "a key of thirty-two bytes, really", { mode: 0o600 });
  mkdirSync(keys.get("keys")!);
  writeFileSync(join(keys.get("keys")!, "alice.key"), "another key of thirty-two bytes!", { mode: 0o600 });

  /** Returns what `read` resolves with; undefined if it rejects with an error of our class. */
  async function readOrReject<T>(read: () => Promise<T>, lines: number): Promise<T | undefined> {
    try {
      return await read();
    } catch (error) {
      if (error instanceof UsageError) return undefined;
      if (!(error instanceof ConfigError)) throw error;
      check(error.lines.length > 0, "an error has no line");
      for (const line of error.lines) {
        const [, number] = /^[^:]*:(\d+): ./s.exec(line) ?? [];
        check(line.startsWith(`${file}:`), "an error does not name the file", line);
        check(
          number === undefined || (Number(number) >= 1 && Number(number) <= lines),
          "a line does not exist",
          line,
        );
      }
      return undefined;
    }
  }

  async function plan(settings: TunnelSettings): Promise<void> {
    if (![...keys.values()].includes(settings.key) || !needsNoLookup(settings)) return;
    const ignore = () => {};
    const options = {
      waitForDns: false,
      warn: ignore,
      onUnresolved: ignore,
      onRejected: ignore,
      onIgnored: ignore,
    };
    try {
      const made = await planTunnel(settings, options);
      check(made !== undefined && made.keys.length > 0 && made.targets.length > 0, "a plan is not complete");
      for (const { addresses } of made.targets) check(addresses.length > 0, "a target has no address");
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      for (const line of error.lines)
        check(line.startsWith(`${settings.name}: `), "an error names no tunnel", line);
    }
  }

  return {
    seeds: [MINIMAL, FULL, CLIENT, "", "a = 1\n", "[tunnels]\n", '[tunnels.a]\nx = """\n\n"""\n', LONG].map(
      (text) => Buffer.from(text),
    ),
    words: [
      ...Object.values(TUNNEL_OPTIONS).map(({ long }) => `${long} = `),
      "[tunnels.b]\n",
      "[[tunnels]]\n",
      "[tunnels.a.keys.alice]\n",
      "true\n",
      "false\n",
      "0",
      "-1",
      "1e400",
      "inf\n",
      "nan\n",
      "0x10",
      "9007199254740993",
      '"\n',
      '"""',
      "'''",
      "{ a = 1 }\n",
      "[1, 2]\n",
      '["", "x"]\n',
      "2030-01-31\n",
      "12:30:00\n",
      "constructor = ",
      "__proto__ = ",
      "a.b = ",
      "\\u0000",
      "# comment\n",
    ],
    async run(input) {
      writeFileSync(file, input);
      const lines = input.toString().split("\n").length;
      const commandLine = { foreground: true, process: {}, file };
      const config = await readOrReject(() => readConfig(commandLine), lines);
      if (config !== undefined) {
        check(config.tunnels.length > 0, "a file has no tunnel");
        checkProcess(config.process);
        for (const tunnel of config.tunnels) checkTunnel(tunnel);
        for (const tunnel of config.tunnels) await plan(tunnel);
      }
      const client = await readOrReject(() => readClientSettings(file), lines);
      if (client !== undefined) checkClient(client);
    },
    close: () => rmSync(directory, { recursive: true }),
  };
}
