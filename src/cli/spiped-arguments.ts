/** The command line of `spiped`. */

import { ConfigError, UsageError } from "../config/config-error.ts";
import { parseCount } from "../config/numbers.ts";
import type { Met, OptionSpec } from "../config/option-spec.ts";
import { numberOf, secondsOf, wrongArgument } from "../config/option-value.ts";
import { DEFAULT_TIMEOUT, PROCESS_OPTIONS, PROGRAM, TUNNEL_OPTIONS } from "../config/options.ts";
import type { ProcessSettings } from "../config/process-settings.ts";
import {
  DEFAULT_LIMIT,
  DEFAULT_RESOLVE_INTERVAL,
  parseMode,
  type TunnelSettings,
} from "../config/tunnel-settings.ts";
import type { DaemonSettings } from "../daemon/daemon.ts";
import { AddressList } from "../net/cidr-list.ts";
import { describeOptions, readOptions } from "./getopt.ts";
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

/** More processes than this share no work: they only cost memory. */
const MOST_WORKERS = 256;

function workersOf(met: Met): number {
  const requirement = `must be auto, or from 1 to ${MOST_WORKERS}`;
  const count = numberOf(met, parseCount, requirement);
  if (count > MOST_WORKERS) throw wrongArgument(met, requirement);
  return count;
}

/** What `spiped` is asked to do. */
export type SpipedArguments =
  | ({ readonly action: "serve" } & DaemonSettings)
  | { readonly action: "check-config"; readonly config: string }
  | { readonly action: "generate-key"; readonly file: string }
  | { readonly action: "check-key"; readonly file: string };

/**
 * Reads the command line.
 *
 * @throws UsageError, ConfigError; Exit after `-v` or `-h`.
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
          throw new ConfigError([
            `${met.typed} needs permissions such as 0660, not ${met.value || "an empty value"}`,
          ]);
        break;
      case OPTIONS.metricsHost:
        if (!/^[\w-]+(\.[\w-]+)*\.?$/.test(met.value))
          throw new ConfigError([
            `${met.typed} needs a host name without a port, not ${met.value || "an empty value"}`,
          ]);
        break;
      case OPTIONS.config:
      case OPTIONS.metricsToken:
      case OPTIONS.generateKey:
      case OPTIONS.checkKey:
        if (met.value === "") throw new ConfigError([`${met.typed} has an empty value: name a file`]);
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
    throw new ConfigError([
      `${met.typed} needs ${values.join(" or ")}, not ${met.value || "an empty value"}`,
    ]);
}

function checkValue(met: Met, check: () => void): void {
  try {
    check();
  } catch (error) {
    throw new ConfigError([`${met.typed}: ${(error as Error).message}`]);
  }
}
