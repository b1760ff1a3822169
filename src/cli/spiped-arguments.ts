/** Parses the command line of `spiped`. */

import { ConfigError, UsageError } from "../config/config-error.ts";
import { parseCount } from "../config/numbers.ts";
import type { OptionSpec, ParsedOption } from "../config/option-spec.ts";
import { parseNumberOption, parseSecondsOption, wrongArgument } from "../config/option-value.ts";
import { DEFAULT_TIMEOUT_S, PROCESS_OPTIONS, PROGRAM, TUNNEL_OPTIONS } from "../config/options.ts";
import type { ProcessSettings } from "../config/process-settings.ts";
import {
  DEFAULT_MAX_CONNECTIONS,
  DEFAULT_RESOLVE_INTERVAL_S,
  parseMode,
  type TunnelSettings,
} from "../config/tunnel-settings.ts";
import type { DaemonSettings } from "../daemon/daemon.ts";
import { AddressList } from "../net/cidr-list.ts";
import { describeOptions, parseCommandLine } from "./command-line.ts";
import { Exit } from "./run-program.ts";
import { VERSION } from "./version.ts";

const OPTIONS = { ...TUNNEL_OPTIONS, ...PROCESS_OPTIONS };

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

/** Maximum number of worker processes; more would only use memory. */
const MAX_WORKERS = 256;

function parseWorkers(option: ParsedOption): number {
  const requirement = `must be auto, or from 1 to ${MAX_WORKERS}`;
  const count = parseNumberOption(option, parseCount, requirement);
  if (count > MAX_WORKERS) throw wrongArgument(option, requirement);
  return count;
}

/** The action on the command line, with its settings. */
export type SpipedArguments =
  | ({ readonly action: "serve" } & DaemonSettings)
  | { readonly action: "check-config"; readonly config: string }
  | { readonly action: "generate-key"; readonly file: string }
  | { readonly action: "check-key"; readonly file: string };

/**
 * Parses the command line.
 *
 * @throws UsageError, ConfigError; Exit after `-v` or `-h`.
 */
export function readArguments(argv: readonly string[]): SpipedArguments {
  const given = new Map<OptionSpec, string[]>();
  const numbers = {
    limit: DEFAULT_MAX_CONNECTIONS,
    timeout: DEFAULT_TIMEOUT_S,
    interval: DEFAULT_RESOLVE_INTERVAL_S,
    idle: Number.POSITIVE_INFINITY,
  };
  let workers: number | "auto" = 1;

  parseCommandLine(Object.values(OPTIONS), argv, (option) => {
    given.set(option.spec, [...(given.get(option.spec) ?? []), option.value]);
    switch (option.spec) {
      case OPTIONS.encrypt:
      case OPTIONS.decrypt:
        if (given.has(OPTIONS.encrypt) && given.has(OPTIONS.decrypt))
          throw new UsageError("-e and -d exclude each other");
        break;
      case OPTIONS.limit:
        numbers.limit = parseNumberOption(option, parseCount);
        break;
      case OPTIONS.timeout:
        numbers.timeout = parseSecondsOption(option, DEFAULT_TIMEOUT_S);
        break;
      case OPTIONS.interval:
        numbers.interval = parseSecondsOption(option, DEFAULT_RESOLVE_INTERVAL_S);
        break;
      case OPTIONS.idle:
        numbers.idle = parseSecondsOption(option, Number.POSITIVE_INFINITY);
        break;
      case OPTIONS.workers:
        workers = option.value === "auto" ? "auto" : parseWorkers(option);
        break;
      case OPTIONS.allow:
      case OPTIONS.acceptProxy:
      case OPTIONS.penaltyExempt:
        validateWith(option, () => new AddressList([option.value]));
        break;
      case OPTIONS.sendProxy:
        requireOneOf(option, ["v1", "v2"]);
        break;
      case OPTIONS.logLevel:
        requireOneOf(option, ["warn", "info"]);
        break;
      case OPTIONS.logFormat:
        requireOneOf(option, ["text", "json"]);
        break;
      case OPTIONS.socketMode:
        if (parseMode(option.value) === undefined)
          throw new ConfigError([
            `${option.rawName} needs permissions such as 0660, not ${option.value || "an empty value"}`,
          ]);
        break;
      case OPTIONS.metricsHost:
        if (!/^[\w-]+(\.[\w-]+)*\.?$/.test(option.value))
          throw new ConfigError([
            `${option.rawName} needs a host name without a port, not ${option.value || "an empty value"}`,
          ]);
        break;
      case OPTIONS.config:
      case OPTIONS.metricsToken:
      case OPTIONS.generateKey:
      case OPTIONS.checkKey:
        if (option.value === "") throw new ConfigError([`${option.rawName} has an empty value: name a file`]);
        break;
      case OPTIONS.version:
        process.stderr.write(`${PROGRAM} ${VERSION}\n`);
        throw new Exit(0);
      case OPTIONS.help:
        process.stdout.write(`${USAGE}\n${describeOptions(Object.values(OPTIONS))}\n`);
        throw new Exit(0);
    }
  });

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
    const stray = Object.values<OptionSpec>(TUNNEL_OPTIONS).find((spec) => given.has(spec));
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
  if (given.has(OPTIONS.weak) && given.has(OPTIONS.requireForwardSecrecy))
    throw new UsageError("-f and -g exclude each other");
  const noResolve = given.has(OPTIONS.noResolve);
  if (noResolve && numbers.interval !== DEFAULT_RESOLVE_INTERVAL_S)
    throw new UsageError("-r and -R exclude each other");

  const tunnel: TunnelSettings = {
    mode: given.has(OPTIONS.encrypt) ? "encrypt" : "decrypt",
    source,
    targets: [target, ...(given.get(OPTIONS.failover) ?? [])],
    key,
    bind: value(OPTIONS.bind),
    weak: given.has(OPTIONS.weak),
    requireForwardSecrecy: given.has(OPTIONS.requireForwardSecrecy),
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

function requireOneOf(option: ParsedOption, values: readonly string[]): void {
  if (!values.includes(option.value))
    throw new ConfigError([
      `${option.rawName} needs ${values.join(" or ")}, not ${option.value || "an empty value"}`,
    ]);
}

function validateWith(option: ParsedOption, check: () => void): void {
  try {
    check();
  } catch (error) {
    throw new ConfigError([`${option.rawName}: ${(error as Error).message}`]);
  }
}
