/** The options of both programs. */
import type { OptionSpec } from "./option-spec.ts";

/** The daemon's name in messages. */
export const PROGRAM = "spiped";

/** Default of `-o`, the timeout for the connect and for the handshake, in s. */
export const DEFAULT_TIMEOUT_S = 5;

/** Headings of the help text. */
const GROUP = {
  tunnel: "Addresses and key:",
  security: "Security:",
  limits: "Limits and timeouts:",
  proxyProtocol: "PROXY protocol:",
  unixSocket: "UNIX socket to listen on:",
  configuration: "Configuration file:",
  process: "Process:",
  monitoring: "Log and monitoring:",
  keys: "Keys:",
  help: "Help:",
  spipe: "Behavior:",
} as const;

/** Options that both programs have. */
const SHARED_OPTIONS = {
  target: {
    group: GROUP.tunnel,
    short: "t",
    long: "target",
    value: "ADDR",
    help: "where to connect: [IP]:PORT, NAME:PORT or /PATH",
  },
  key: {
    group: GROUP.tunnel,
    short: "k",
    long: "key",
    value: "FILE",
    help: "file with the shared key; - for standard input",
  },
  bind: {
    group: GROUP.tunnel,
    short: "b",
    long: "bind",
    value: "ADDR",
    help: "local address for outgoing connections: IP, [IP]:PORT, NAME",
  },
  weak: {
    group: GROUP.security,
    short: "f",
    long: "weak-handshake",
    help: "skip Diffie-Hellman: faster, but no forward secrecy",
  },
  requireForwardSecrecy: {
    group: GROUP.security,
    short: "g",
    long: "require-forward-secrecy",
    help: "reject peers that use -f",
  },
  noKeepAlive: { group: GROUP.limits, short: "j", long: "no-keepalive", help: "no TCP keep-alive" },
  timeout: {
    group: GROUP.limits,
    short: "o",
    long: "timeout",
    value: "SECONDS",
    help: "limit for the connect, and again for the handshake (5)",
  },
  version: { group: GROUP.help, short: "v", long: "version", help: "print the version" },
  help: { group: GROUP.help, short: "h", long: "help", help: "print this help" },
} as const satisfies Record<string, OptionSpec>;

/** Options of `spipe`. */
export const SPIPE_OPTIONS = {
  target: SHARED_OPTIONS.target,
  key: SHARED_OPTIONS.key,
  bind: SHARED_OPTIONS.bind,
  weak: SHARED_OPTIONS.weak,
  requireForwardSecrecy: SHARED_OPTIONS.requireForwardSecrecy,
  noKeepAlive: SHARED_OPTIONS.noKeepAlive,
  timeout: SHARED_OPTIONS.timeout,
  fragile: {
    group: GROUP.spipe,
    long: "fragile",
    help: "exit on peer EOF, even if standard input stays open",
  },
  verbose: {
    group: GROUP.spipe,
    long: "verbose",
    help: "report each step of the connection on standard error",
  },
  version: SHARED_OPTIONS.version,
  help: SHARED_OPTIONS.help,
} as const satisfies Record<string, OptionSpec>;

/** Options of `spiped` that configure the tunnel. */
export const TUNNEL_OPTIONS = {
  encrypt: {
    group: GROUP.tunnel,
    short: "e",
    long: "encrypt",
    help: "accept plain connections, connect to the target encrypted",
  },
  decrypt: {
    group: GROUP.tunnel,
    short: "d",
    long: "decrypt",
    help: "accept encrypted connections, connect to the target plain",
  },
  source: {
    group: GROUP.tunnel,
    short: "s",
    long: "source",
    value: "ADDR",
    help: "where to listen: [IP]:PORT, NAME:PORT or /PATH",
  },
  target: SHARED_OPTIONS.target,
  key: {
    ...SHARED_OPTIONS.key,
    help: "file with the shared key; - for standard input; with -d also a directory of keys, one or more per client",
  },
  bind: SHARED_OPTIONS.bind,
  weak: SHARED_OPTIONS.weak,
  requireForwardSecrecy: SHARED_OPTIONS.requireForwardSecrecy,
  noKeepAlive: SHARED_OPTIONS.noKeepAlive,
  limit: {
    group: GROUP.limits,
    short: "n",
    long: "max-connections",
    value: "N",
    help: "simultaneous connections; 0 for no limit (100)",
  },
  timeout: SHARED_OPTIONS.timeout,
  interval: {
    group: GROUP.limits,
    short: "r",
    long: "resolve-interval",
    value: "SECONDS",
    help: "interval between lookups of the target (60)",
  },
  noResolve: { group: GROUP.limits, short: "R", long: "no-resolve", help: "look the target up only once" },
  failover: {
    group: GROUP.tunnel,
    long: "failover-target",
    value: "ADDR",
    repeatable: true,
    help: "address to connect to if the target fails; repeatable",
  },
  idle: {
    group: GROUP.limits,
    long: "idle-timeout",
    value: "SECONDS",
    help: "close connections without traffic",
  },
  allow: {
    group: GROUP.security,
    long: "allow",
    value: "CIDR",
    repeatable: true,
    help: "serve clients from these addresses only; repeatable",
  },
  acceptProxy: {
    group: GROUP.proxyProtocol,
    long: "accept-proxy",
    value: "CIDR",
    repeatable: true,
    help: "expect a PROXY protocol header from these addresses; repeatable",
  },
  sendProxy: {
    group: GROUP.proxyProtocol,
    long: "send-proxy",
    value: "VERSION",
    help: "send the target a PROXY protocol header, v1 or v2",
  },
  penaltyExempt: {
    group: GROUP.security,
    long: "penalty-exempt",
    value: "CIDR",
    repeatable: true,
    help: "never penalize these addresses for failed handshakes; repeatable",
  },
  socketMode: {
    group: GROUP.unixSocket,
    long: "socket-mode",
    value: "MODE",
    help: "permissions of a UNIX source, such as 0660",
  },
  socketOwner: {
    group: GROUP.unixSocket,
    long: "socket-owner",
    value: "SPEC",
    help: "owner of a UNIX source, as for -u",
  },
} as const satisfies Record<string, OptionSpec>;

/** Options of `spiped` that configure the process. */
export const PROCESS_OPTIONS = {
  config: {
    group: GROUP.configuration,
    long: "config",
    value: "FILE",
    help: "read tunnels from a file instead",
  },
  checkConfig: {
    group: GROUP.configuration,
    long: "check-config",
    help: "check that file and the keys and names in it, and exit",
  },
  wait: {
    group: GROUP.process,
    short: "D",
    long: "wait-for-dns",
    help: "start immediately and retry DNS lookups every second",
  },
  foreground: {
    group: GROUP.process,
    short: "F",
    long: "foreground",
    help: "stay in the foreground; no pid file",
  },
  pidFile: {
    group: GROUP.process,
    short: "p",
    long: "pid-file",
    value: "FILE",
    help: "pid file (the source address and .pid)",
  },
  user: {
    group: GROUP.process,
    short: "u",
    long: "user",
    value: "SPEC",
    help: "run as user, :group or user:group",
  },
  workers: {
    group: GROUP.process,
    long: "workers",
    value: "N",
    help: "worker processes; auto for one per core (1)",
  },
  syslog: { group: GROUP.monitoring, long: "syslog", help: "log to syslog" },
  logLevel: {
    group: GROUP.monitoring,
    long: "log-level",
    value: "LEVEL",
    help: "warn, or info to log each connection (warn)",
  },
  logFormat: { group: GROUP.monitoring, long: "log-format", value: "FORMAT", help: "text or json (text)" },
  metrics: {
    group: GROUP.monitoring,
    long: "metrics",
    value: "ADDR",
    help: "serve metrics, health and a status page on loopback or /PATH",
  },
  metricsPublic: {
    group: GROUP.monitoring,
    long: "metrics-public",
    help: "allow a --metrics address that other machines can reach",
  },
  metricsToken: {
    group: GROUP.monitoring,
    long: "metrics-token-file",
    value: "FILE",
    help: "require the bearer token in this file for metrics and status page",
  },
  metricsHost: {
    group: GROUP.monitoring,
    long: "metrics-host",
    value: "NAME",
    repeatable: true,
    help: "also answer requests for this host name; repeatable",
  },
  generateKey: { group: GROUP.keys, long: "generate-key", value: "FILE", help: "make a new key, and exit" },
  checkKey: {
    group: GROUP.keys,
    long: "check-key",
    value: "FILE",
    help: "show size, permissions and fingerprint of a key, and exit",
  },
  version: SHARED_OPTIONS.version,
  help: SHARED_OPTIONS.help,
} as const satisfies Record<string, OptionSpec>;
