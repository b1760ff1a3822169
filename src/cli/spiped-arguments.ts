/** The command line of `spiped`. */
import { DEFAULT_TIMEOUT, Exit, numberOf, SHARED_OPTIONS, secondsOf } from "./common-options.ts";
import { describeOptions, type OptionSpec, readOptions, UsageError } from "./grammar.ts";
import { parseCount } from "./numbers.ts";
import { VERSION } from "./version.ts";

/** The program's name in messages. */
export const PROGRAM = "spiped";

const DEFAULT_LIMIT = 100;
const DEFAULT_RESOLVE_INTERVAL = 60;

const OPTIONS = {
  encrypt: { short: "e", long: "encrypt", help: "accept plain connections, connect to the target encrypted" },
  decrypt: { short: "d", long: "decrypt", help: "accept encrypted connections, connect to the target plain" },
  source: {
    short: "s",
    long: "source",
    value: "ADDR",
    help: "where to listen: [IP]:PORT, NAME:PORT or /PATH",
  },
  target: SHARED_OPTIONS.target,
  key: SHARED_OPTIONS.key,
  bind: SHARED_OPTIONS.bind,
  wait: { short: "D", long: "wait-for-dns", help: "start at once and wait until the names can be looked up" },
  foreground: { short: "F", long: "foreground", help: "stay in the foreground; no pid file" },
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
  pidFile: { short: "p", long: "pid-file", value: "FILE", help: "pid file (the source address and .pid)" },
  interval: {
    short: "r",
    long: "resolve-interval",
    value: "SECONDS",
    help: "look the target up this often (60)",
  },
  noResolve: { short: "R", long: "no-resolve", help: "look the target up only once" },
  syslog: { long: "syslog", help: "messages go to syslog" },
  user: { short: "u", long: "user", value: "SPEC", help: "run as user, :group or user:group" },
  version: SHARED_OPTIONS.version,
  help: SHARED_OPTIONS.help,
} as const satisfies Record<string, OptionSpec>;

/** The usage text. */
export const USAGE = `usage: spiped {-e | -d} -s <source socket> -t <target socket> -k <key file>
    [-b <bind address>] [-DFj] [-f | -g] [-n <max # connections>]
    [-o <connection timeout>] [-p <pidfile>] [-r <rtime> | -R] [--syslog]
    [-u {<username> | <:groupname> | <username:groupname>}]
       spiped -v | -h
`;

/** What the command line says. */
export interface SpipedArguments {
  readonly mode: "encrypt" | "decrypt";
  readonly source: string;
  readonly target: string;
  readonly key: string;
  readonly bind: string | undefined;
  readonly waitForDns: boolean;
  readonly foreground: boolean;
  readonly weak: boolean;
  readonly requireForwardSecrecy: boolean;
  readonly keepAlive: boolean;
  readonly maxConnections: number;
  /** s */
  readonly timeout: number;
  readonly pidFile: string;
  /** s; `Infinity` for never. */
  readonly resolveInterval: number;
  readonly syslog: boolean;
  readonly user: string | undefined;
}

/**
 * Reads the command line.
 *
 * @throws UsageError, CommandError; Exit after `-v` or `-h`.
 */
export function readArguments(argv: readonly string[]): SpipedArguments {
  const flags = new Set<OptionSpec>();
  const values = new Map<OptionSpec, string>();
  let maxConnections = DEFAULT_LIMIT;
  let timeout = DEFAULT_TIMEOUT;
  let resolveInterval = DEFAULT_RESOLVE_INTERVAL;

  for (const met of readOptions(Object.values(OPTIONS), argv)) {
    flags.add(met.spec);
    values.set(met.spec, met.value);
    switch (met.spec) {
      case OPTIONS.encrypt:
      case OPTIONS.decrypt:
        if (flags.has(OPTIONS.encrypt) && flags.has(OPTIONS.decrypt))
          throw new UsageError("-e and -d exclude each other");
        break;
      case OPTIONS.limit:
        maxConnections = numberOf(met, parseCount);
        break;
      case OPTIONS.timeout:
        timeout = secondsOf(met, DEFAULT_TIMEOUT);
        break;
      case OPTIONS.interval:
        resolveInterval = secondsOf(met, DEFAULT_RESOLVE_INTERVAL);
        break;
      case OPTIONS.version:
        process.stderr.write(`${PROGRAM} ${VERSION}\n`);
        throw new Exit(0);
      case OPTIONS.help:
        process.stdout.write(`${USAGE}\n${describeOptions(Object.values(OPTIONS))}\n`);
        throw new Exit(0);
    }
  }

  const required = (spec: OptionSpec, what: string) => {
    const value = values.get(spec);
    if (value === undefined) throw new UsageError(`-${spec.short} is missing: ${what}`);
    return value;
  };
  if (!flags.has(OPTIONS.encrypt) && !flags.has(OPTIONS.decrypt)) {
    throw new UsageError("-e or -d is missing: which side is encrypted");
  }
  const source = required(OPTIONS.source, "where to listen");
  const target = required(OPTIONS.target, "where to connect");
  const key = required(OPTIONS.key, "the file with the shared key");
  if (flags.has(OPTIONS.weak) && flags.has(OPTIONS.strict))
    throw new UsageError("-f and -g exclude each other");
  const noResolve = flags.has(OPTIONS.noResolve);
  if (noResolve && resolveInterval !== DEFAULT_RESOLVE_INTERVAL)
    throw new UsageError("-r and -R exclude each other");

  return {
    mode: flags.has(OPTIONS.encrypt) ? "encrypt" : "decrypt",
    source,
    target,
    key,
    bind: values.get(OPTIONS.bind),
    waitForDns: flags.has(OPTIONS.wait),
    foreground: flags.has(OPTIONS.foreground),
    weak: flags.has(OPTIONS.weak),
    requireForwardSecrecy: flags.has(OPTIONS.strict),
    keepAlive: !flags.has(OPTIONS.noKeepAlive),
    maxConnections,
    timeout,
    pidFile: values.get(OPTIONS.pidFile) ?? `${source}.pid`,
    resolveInterval: noResolve ? Number.POSITIVE_INFINITY : resolveInterval,
    syslog: flags.has(OPTIONS.syslog),
    user: values.get(OPTIONS.user),
  };
}
