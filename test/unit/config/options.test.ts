/** Each row of the option table, from the command line and from TOML. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readArguments } from "../../../src/cli/spiped-arguments.ts";
import { readConfig } from "../../../src/config/config.ts";
import type { OptionSpec } from "../../../src/config/option-spec.ts";
import { type PROCESS_OPTIONS, SPIPED_OPTIONS, TUNNEL_OPTIONS } from "../../../src/config/options.ts";
import { temporaryDirectory } from "../../support/programs.ts";

/** A value of a setting: on the command line, in TOML and as read; and the words and TOML of wrong values. */
interface Sample {
  readonly typed: string;
  readonly toml: string;
  readonly value: unknown;
  readonly wrong?: { readonly typed: string; readonly toml: string };
}

const FLAG: Sample = { typed: "", toml: "true", value: true };
const text = (value: string): Sample => ({ typed: value, toml: JSON.stringify(value), value });
const list = (value: string, wrong?: string): Sample => ({
  ...text(value),
  value: [value],
  ...(wrong !== undefined && { wrong: { typed: wrong, toml: JSON.stringify(wrong) } }),
});
const CIDR = list("192.0.2.0/24", "localhost");
const duration = { typed: "0.5", toml: "0.5", value: 500, wrong: { typed: "x", toml: '"x"' } };
const choice = (value: string): Sample => ({ ...text(value), wrong: { typed: "x", toml: '"x"' } });

const SAMPLES: Readonly<Record<keyof typeof TUNNEL_OPTIONS | keyof typeof PROCESS_OPTIONS, Sample>> = {
  encrypt: FLAG,
  decrypt: FLAG,
  source: text("/source"),
  target: list("/target"),
  key: text("/key"),
  bind: text("192.0.2.1"),
  weakHandshake: FLAG,
  requireForwardSecrecy: FLAG,
  noKeepAlive: FLAG,
  maxConnections: { typed: "7", toml: "7", value: 7 },
  timeout: { typed: "0.5", toml: "0.5", value: 500 },
  resolveInterval: { typed: "0.5", toml: "0.5", value: 500 },
  noResolve: FLAG,
  failoverTarget: list("/other"),
  idleTimeout: duration,
  allow: CIDR,
  acceptProxy: CIDR,
  sendProxy: choice("v2"),
  penaltyExempt: CIDR,
  socketMode: { typed: "0660", toml: '"0660"', value: 0o660, wrong: { typed: "9", toml: '"9"' } },
  socketOwner: text("nobody"),
  waitForDns: FLAG,
  pidFile: text("/pid"),
  user: text("nobody"),
  drainTimeout: duration,
  workers: { typed: "2", toml: "2", value: 2, wrong: { typed: "0", toml: "0" } },
  syslog: FLAG,
  logLevel: choice("info"),
  logFormat: choice("json"),
  metrics: text("/metrics"),
  metricsPublic: FLAG,
  metricsTokenFile: { ...text("/token"), wrong: { typed: "", toml: '""' } },
  metricsHost: list("example.org", "a:1"),
};

const isTunnel = (name: string) => name in TUNNEL_OPTIONS;
/** True for a setting that needs `metrics`. */
const needsMetrics = (name: string) => /^metrics./.test(name);
const isSide = (name: string) => name === "encrypt" || name === "decrypt";

async function fromCommandLine(name: string, typed: string) {
  const { long, value } = SPIPED_OPTIONS[name as keyof typeof SPIPED_OPTIONS] as OptionSpec;
  const required = ["source", "target", "key"]
    .filter((other) => other !== name)
    .map((other) => `--${other}=/x`);
  const side = isSide(name) ? [] : ["--decrypt"];
  const metrics = needsMetrics(name) ? ["--metrics=/metrics"] : [];
  const option = value === undefined ? `--${long}` : `--${long}=${typed}`;
  const args = await readArguments([...required, ...side, ...metrics, option]);
  if (args.action !== "serve") throw new Error("not a daemon's command line");
  return readConfig(args.config);
}

async function fromFile(name: string, toml: string) {
  const { long } = SPIPED_OPTIONS[name as keyof typeof SPIPED_OPTIONS];
  const setting = `${long} = ${toml}`;
  const top = isTunnel(name) ? [] : [setting];
  if (needsMetrics(name)) top.push('metrics = "/metrics"');
  const fields = ["source", "target", "key"]
    .filter((other) => other !== name)
    .map((other) => `${other} = "/x"`);
  if (!isSide(name)) fields.push("decrypt = true");
  if (isTunnel(name)) fields.push(setting);
  const file = join(temporaryDirectory(), "spiped.toml");
  writeFileSync(file, [...top, "[tunnels.mail]", ...fields].join("\n"));
  return readConfig({ foreground: false, process: {}, file });
}

async function messageOf(result: Promise<unknown>): Promise<string> {
  return result.then(
    () => "no error",
    (error: Error) => error.message,
  );
}

const NAMES = Object.keys(SAMPLES) as (keyof typeof SAMPLES)[];

it.each(NAMES)("%s has the same value from the command line and from TOML", async (name) => {
  const { typed, toml, value } = SAMPLES[name];
  for (const { process, tunnels } of [await fromCommandLine(name, typed), await fromFile(name, toml)]) {
    const settings: object = isTunnel(name) ? tunnels[0]! : process;
    expect(settings).toHaveProperty(name, value);
  }
});

it.each(NAMES.filter((name) => SAMPLES[name].wrong !== undefined))(
  "%s is rejected with the same message in both",
  async (name) => {
    const { long } = SPIPED_OPTIONS[name];
    const { typed, toml } = SAMPLES[name].wrong!;
    const typedError = await messageOf(fromCommandLine(name, typed));
    const tomlError = await messageOf(fromFile(name, toml));
    expect(typedError).toMatch(new RegExp(`^--${long} must be .*, not .`));
    const [, problem] = / (must be .*)$/.exec(typedError)!;
    expect(tomlError.replaceAll('"', "").replace(", as a string", "")).toMatch(
      new RegExp(`\\.toml:\\d+: .*${long}: ${problem!.replace(/[()]/g, "\\$&")}$`),
    );
  },
);

describe("a setting", () => {
  it("of the command line overrides that of the file", async () => {
    const file = join(temporaryDirectory(), "spiped.toml");
    writeFileSync(
      file,
      'workers = 2\nuser = "a"\n[tunnels.mail]\ndecrypt = true\nsource = "/s"\ntarget = "/t"\nkey = "k"\n',
    );
    const args = await readArguments(["--config", file, "--workers", "3"]);
    if (args.action !== "serve") throw new Error("not a daemon's command line");
    const { process } = await readConfig(args.config);
    expect(process).toMatchObject({ workers: 3, user: "a", pidFile: `${file}.pid`, logLevel: "warn" });
  });
});
