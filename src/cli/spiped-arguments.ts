/** The command line of `spiped`. */
import { AddressList } from "../tunnel/address-list.ts";
import { CommandError } from "./command-error.ts";
import {
  DEFAULT_TIMEOUT,
  Exit,
  numberOf,
  SHARED_OPTIONS,
  secondsOf,
  wrongArgument,
} from "./common-options.ts";
import { describeOptions, type Met, type OptionSpec, readOptions, UsageError } from "./grammar.ts";
import { parseCount } from "./numbers.ts";
import { DEFAULT_LIMIT, DEFAULT_RESOLVE_INTERVAL, parseMode, type TunnelSettings } from "./settings.ts";
import { VERSION } from "./version.ts";

/** The program's name in messages. */
export const PROGRAM = "spiped";

/** Options that describe a tunnel. */
const TUNNEL = {
  encrypt: { short: "e", long: "encrypt", help: "accept plain connections, connect to the target encrypted" },
  decrypt: { short: "d", long: "decrypt", help: "accept encrypted connections, connect to the target plain" },
  source: {
    short: "s",
    long: "source",
    value: "ADDR",
    help: "where to listen: [IP]:PORT, NAME:PORT or /PATH",
  },
  target: SHARED_OPTIONS.target,
  key: {
    ...SHARED_OPTIONS.key,
    help: "file with the shared key; - for standard input;\nwith -d also a directory of keys, one for each peer",
  },
  bind: SHARED_OPTIONS.bind,
  weak: SHARED_OPTIONS.weak,
  strict: SHARED_OPTIONS.strict,
  noKeepAlive: SHARED_OPTIONS.noKeepAlive,
  limit: {
    short: "n",
    long: "max-connections",
    value: "N",
    help: "simultaneous connections; 0 for no limit (100)",
  },
  timeout: SHARED_OPTIONS.timeout,
  interval: {
    short: "r",
    long: "resolve-interval",
    value: "SECONDS",
    help: "look the target up this often (60)",
  },
  noResolve: { short: "R", long: "no-resolve", help: "look the target up only once" },
  failover: {
    long: "failover-target",
    value: "ADDR",
    repeatable: true,
    help: "where connections go when the target fails; repeatable",
  },
  idle: { long: "idle-timeout", value: "SECONDS", help: "end connections without traffic" },
  allow: {
    long: "allow",
    value: "CIDR",
    repeatable: true,
    help: "serve clients from these addresses only; repeatable",
  },
  acceptProxy: {
    long: "accept-proxy",
    value: "CIDR",
    repeatable: true,
    help: "expect a PROXY protocol header from these addresses; repeatable",
  },
  sendProxy: {
    long: "send-proxy",
    value: "VERSION",
    help: "send the target a PROXY protocol header, v1 or v2",
  },
  penaltyExempt: {
    long: "penalty-exempt",
    value: "CIDR",
    repeatable: true,
    help: "never penalize these addresses for failed handshakes; repeatable",
  },
  socketMode: { long: "socket-mode", value: "MODE", help: "permissions of a UNIX source, such as 0660" },
  socketOwner: { long: "socket-owner", value: "SPEC", help: "owner of a UNIX source, as for -u" },
} as const satisfies Record<string, OptionSpec>;

/** Options that describe the process. */
const PROCESS = {
  config: { long: "config", value: "FILE", help: "read tunnels from a file instead" },
  checkConfig: { long: "check-config", help: "check that file, and what it names, and exit" },
  wait: { short: "D", long: "wait-for-dns", help: "start at once and wait until the names can be looked up" },
  foreground: { short: "F", long: "foreground", help: "stay in the foreground; no pid file" },
  pidFile: { short: "p", long: "pid-file", value: "FILE", help: "pid file (the source address and .pid)" },
  user: { short: "u", long: "user", value: "SPEC", help: "run as user, :group or user:group" },
  workers: { long: "workers", value: "N", help: "processes that share the work; auto for one a core (1)" },
  syslog: { long: "syslog", help: "messages go to syslog" },
  logLevel: { long: "log-level", value: "LEVEL", help: "warn, or info to tell of each connection (warn)" },
  logFormat: { long: "log-format", value: "FORMAT", help: "text or json (text)" },
  metrics: {
    long: "metrics",
    value: "ADDR",
    help: "serve metrics, health and a status page on loopback or /PATH",
  },
  metricsPublic: {
    long: "metrics-public",
    help: "let --metrics take an address that other machines can reach",
  },
  metricsToken: {
    long: "metrics-token-file",
    value: "FILE",
    help: "require the bearer token in this file for metrics and status page",
  },
  metricsHost: {
    long: "metrics-host",
    value: "NAME",
    repeatable: true,
    help: "answer requests for this host name too; repeatable",
  },
  generateKey: { long: "generate-key", value: "FILE", help: "make a new key, and exit" },
  checkKey: {
    long: "check-key",
    value: "FILE",
    help: "show size, permissions and fingerprint of a key, and exit",
  },
  version: SHARED_OPTIONS.version,
  help: SHARED_OPTIONS.help,
} as const satisfies Record<string, OptionSpec>;

const OPTIONS = { ...TUNNEL, ...PROCESS };

/** The options that no configuration file sets. */
export const PROCESS_OPTIONS: readonly OptionSpec[] = Object.values(PROCESS);

/** The usage text. */
export const USAGE = `usage: spiped {-e | -d} -s <source socket> -t <target socket> -k <key file>
    [-b <bind address>] [-DFj] [-f | -g] [-n <max # connections>]
    [-o <connection timeout>] [-p <pidfile>] [-r <rtime> | -R] [--syslog]
    [-u {<username> | <:groupname> | <username:groupname>}]
       spiped --config <file> [--check-config]
       spiped --generate-key <file> | --check-key <file>
       spiped keys {list | show | add | rotate | revoke} <directory> [<name>]
       spiped -v | -h
`;

/** More processes than this share no work: they only cost memory. */
const MOST_WORKERS = 256;

function workersOf(met: Met): number {
  const requirement = `must be auto, or from 1 to ${MOST_WORKERS}`;
  const count = numberOf(met, parseCount, requirement);
  if (count > MOST_WORKERS) throw wrongArgument(met, requirement);
  return count;
}

/** What the command line says of the process. */
export interface ProcessSettings {
  readonly waitForDns: boolean;
  readonly foreground: boolean;
  readonly pidFile: string;
  readonly user: string | undefined;
  /** `auto`: one for each core. */
  readonly workers: number | "auto";
  readonly syslog: boolean;
  readonly logLevel: "warn" | "info";
  readonly logFormat: "text" | "json";
  readonly metrics: string | undefined;
  /** Allow an address of `metrics` that other machines can reach. */
  readonly metricsPublic: boolean;
  /** File with the bearer token that metrics require. */
  readonly metricsToken: string | undefined;
  /** Host names that metrics are asked for under. */
  readonly metricsHosts: readonly string[];
}

/** What `spiped` is asked to do. */
export type SpipedArguments =
  | { readonly action: "serve"; readonly process: ProcessSettings; readonly tunnel: TunnelSettings }
  | { readonly action: "serve"; readonly process: ProcessSettings; readonly config: string }
  | { readonly action: "check-config"; readonly config: string }
  | { readonly action: "generate-key"; readonly file: string }
  | { readonly action: "check-key"; readonly file: string };

/**
 * Reads the command line.
 *
 * @throws UsageError, CommandError; Exit after `-v` or `-h`.
 */
export function readArguments(argv: readonly string[]): SpipedArguments {
  const given = new Map<OptionSpec, string[]>();
  const numbers = {
    limit: DEFAULT_LIMIT,
    timeout: DEFAULT_TIMEOUT,
    interval: DEFAULT_RESOLVE_INTERVAL,
    idle: Number.POSITIVE_INFINITY,
  };
  let workers: number | "auto" = 1;

  for (const met of readOptions(Object.values(OPTIONS), argv)) {
    given.set(met.spec, [...(given.get(met.spec) ?? []), met.value]);
    switch (met.spec) {
      case OPTIONS.encrypt:
      case OPTIONS.decrypt:
        if (given.has(OPTIONS.encrypt) && given.has(OPTIONS.decrypt))
          throw new UsageError("-e and -d exclude each other");
        break;
      case OPTIONS.limit:
        numbers.limit = numberOf(met, parseCount);
        break;
      case OPTIONS.timeout:
        numbers.timeout = secondsOf(met, DEFAULT_TIMEOUT);
        break;
      case OPTIONS.interval:
        numbers.interval = secondsOf(met, DEFAULT_RESOLVE_INTERVAL);
        break;
      case OPTIONS.idle:
        numbers.idle = secondsOf(met, Number.POSITIVE_INFINITY);
        break;
      case OPTIONS.workers:
        workers = met.value === "auto" ? "auto" : workersOf(met);
        break;
      case OPTIONS.allow:
      case OPTIONS.acceptProxy:
      case OPTIONS.penaltyExempt:
        checkValue(met, () => new AddressList([met.value]));
        break;
      case OPTIONS.sendProxy:
        oneOf(met, ["v1", "v2"]);
        break;
      case OPTIONS.logLevel:
        oneOf(met, ["warn", "info"]);
        break;
      case OPTIONS.logFormat:
        oneOf(met, ["text", "json"]);
        break;
      case OPTIONS.socketMode:
        if (parseMode(met.value) === undefined)
          throw new CommandError(
            `${met.typed} needs permissions such as 0660, not ${met.value || "an empty value"}`,
          );
        break;
      case OPTIONS.metricsHost:
        if (!/^[\w-]+(\.[\w-]+)*\.?$/.test(met.value))
          throw new CommandError(
            `${met.typed} needs a host name without a port, not ${met.value || "an empty value"}`,
          );
        break;
      case OPTIONS.config:
      case OPTIONS.metricsToken:
      case OPTIONS.generateKey:
      case OPTIONS.checkKey:
        if (met.value === "") throw new CommandError(`${met.typed} has an empty value: name a file`);
        break;
      case OPTIONS.version:
        process.stderr.write(`${PROGRAM} ${VERSION}\n`);
        throw new Exit(0);
      case OPTIONS.help:
        process.stdout.write(`${USAGE}\n${describeOptions(Object.values(OPTIONS))}\n`);
        throw new Exit(0);
    }
  }

  const value = (spec: OptionSpec) => given.get(spec)?.[0];
  for (const [action, spec] of [
    ["generate-key", OPTIONS.generateKey],
    ["check-key", OPTIONS.checkKey],
  ] as const) {
    const file = value(spec);
    if (file === undefined) continue;
    if (given.size > 1) throw new UsageError(`--${action} stands alone`);
    return { action, file };
  }

  const config = value(OPTIONS.config);
  const settings = (defaultPidFile: string): ProcessSettings => ({
    waitForDns: given.has(OPTIONS.wait),
    foreground: given.has(OPTIONS.foreground),
    pidFile: value(OPTIONS.pidFile) ?? defaultPidFile,
    user: value(OPTIONS.user),
    workers,
    syslog: given.has(OPTIONS.syslog),
    logLevel: value(OPTIONS.logLevel) === "info" ? "info" : "warn",
    logFormat: value(OPTIONS.logFormat) === "json" ? "json" : "text",
    metrics: value(OPTIONS.metrics),
    metricsPublic: given.has(OPTIONS.metricsPublic),
    metricsToken: value(OPTIONS.metricsToken),
    metricsHosts: given.get(OPTIONS.metricsHost) ?? [],
  });
  const withoutMetrics = [OPTIONS.metricsPublic, OPTIONS.metricsToken, OPTIONS.metricsHost].find(
    (spec) => given.has(spec) && !given.has(OPTIONS.metrics),
  );
  if (withoutMetrics !== undefined) throw new UsageError(`--${withoutMetrics.long} needs --metrics`);
  if (config !== undefined) {
    const stray = Object.values<OptionSpec>(TUNNEL).find((spec) => given.has(spec));
    if (stray !== undefined) throw new UsageError(`--${stray.long} belongs into the file of --config`);
    if (given.has(OPTIONS.checkConfig)) return { action: "check-config", config };
    return { action: "serve", process: settings(`${config}.pid`), config };
  }
  if (given.has(OPTIONS.checkConfig)) throw new UsageError("--check-config needs --config");

  const required = (spec: OptionSpec, what: string) => {
    const text = value(spec);
    if (text === undefined) throw new UsageError(`-${spec.short} is missing: ${what}`);
    return text;
  };
  if (!given.has(OPTIONS.encrypt) && !given.has(OPTIONS.decrypt)) {
    throw new UsageError("-e or -d is missing: which side is encrypted");
  }
  const source = required(OPTIONS.source, "where to listen");
  const target = required(OPTIONS.target, "where to connect");
  const key = required(OPTIONS.key, "the file with the shared key");
  if (given.has(OPTIONS.weak) && given.has(OPTIONS.strict))
    throw new UsageError("-f and -g exclude each other");
  const noResolve = given.has(OPTIONS.noResolve);
  if (noResolve && numbers.interval !== DEFAULT_RESOLVE_INTERVAL)
    throw new UsageError("-r and -R exclude each other");

  const tunnel: TunnelSettings = {
    mode: given.has(OPTIONS.encrypt) ? "encrypt" : "decrypt",
    source,
    targets: [target, ...(given.get(OPTIONS.failover) ?? [])],
    key,
    bind: value(OPTIONS.bind),
    weak: given.has(OPTIONS.weak),
    requireForwardSecrecy: given.has(OPTIONS.strict),
    keepAlive: !given.has(OPTIONS.noKeepAlive),
    maxConnections: numbers.limit,
    timeout: numbers.timeout,
    idleTimeout: numbers.idle,
    resolveInterval: noResolve ? Number.POSITIVE_INFINITY : numbers.interval,
    allow: given.get(OPTIONS.allow),
    acceptProxy: given.get(OPTIONS.acceptProxy),
    penaltyExempt: given.get(OPTIONS.penaltyExempt),
    sendProxy: value(OPTIONS.sendProxy) as "v1" | "v2" | undefined,
    socketMode: parseMode(value(OPTIONS.socketMode) ?? ""),
    socketOwner: value(OPTIONS.socketOwner),
  };
  return { action: "serve", process: settings(`${source}.pid`), tunnel };
}

function oneOf(met: Met, values: readonly string[]): void {
  if (!values.includes(met.value))
    throw new CommandError(`${met.typed} needs ${values.join(" or ")}, not ${met.value || "an empty value"}`);
}

function checkValue(met: Met, check: () => void): void {
  try {
    check();
  } catch (error) {
    throw new CommandError(`${met.typed}: ${(error as Error).message}`);
  }
}
