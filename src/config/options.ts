/** The options of both programs. */
import type { OptionSpec } from "./option-spec.ts";

/** The daemon's name in messages. */
export const PROGRAM = "spiped";

/** Default of `-o`, the timeout for the connect and for the handshake, in s. */
export const DEFAULT_TIMEOUT_S = 5;

/** Options that both programs have. */
export const SHARED_OPTIONS = {
  target: {
    short: "t",
    long: "target",
    value: "ADDR",
    help: "where to connect: [IP]:PORT, NAME:PORT or /PATH",
  },
  key: { short: "k", long: "key", value: "FILE", help: "file with the shared key; - for standard input" },
  bind: {
    short: "b",
    long: "bind",
    value: "ADDR",
    help: "local address for outgoing connections: IP, [IP]:PORT, NAME",
  },
  weak: { short: "f", long: "weak-handshake", help: "skip Diffie-Hellman: faster, but no forward secrecy" },
  requireForwardSecrecy: { short: "g", long: "require-forward-secrecy", help: "reject peers that use -f" },
  noKeepAlive: { short: "j", long: "no-keepalive", help: "no TCP keep-alive" },
  timeout: {
    short: "o",
    long: "timeout",
    value: "SECONDS",
    help: "limit for the connect, and again for the handshake (5)",
  },
  version: { short: "v", long: "version", help: "print the version" },
  help: { short: "h", long: "help", help: "print this help" },
} as const satisfies Record<string, OptionSpec>;

/** Options of `spiped` that configure the tunnel. */
export const TUNNEL_OPTIONS = {
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
  requireForwardSecrecy: SHARED_OPTIONS.requireForwardSecrecy,
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
    help: "interval between lookups of the target (60)",
  },
  noResolve: { short: "R", long: "no-resolve", help: "look the target up only once" },
  failover: {
    long: "failover-target",
    value: "ADDR",
    repeatable: true,
    help: "address to connect to if the target fails; repeatable",
  },
  idle: { long: "idle-timeout", value: "SECONDS", help: "close connections without traffic" },
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

/** Options of `spiped` that configure the process. */
export const PROCESS_OPTIONS = {
  config: { long: "config", value: "FILE", help: "read tunnels from a file instead" },
  checkConfig: { long: "check-config", help: "check that file and the keys and names in it, and exit" },
  wait: { short: "D", long: "wait-for-dns", help: "start immediately and retry DNS lookups every second" },
  foreground: { short: "F", long: "foreground", help: "stay in the foreground; no pid file" },
  pidFile: { short: "p", long: "pid-file", value: "FILE", help: "pid file (the source address and .pid)" },
  user: { short: "u", long: "user", value: "SPEC", help: "run as user, :group or user:group" },
  workers: { long: "workers", value: "N", help: "worker processes; auto for one per core (1)" },
  syslog: { long: "syslog", help: "log to syslog" },
  logLevel: { long: "log-level", value: "LEVEL", help: "warn, or info to log each connection (warn)" },
  logFormat: { long: "log-format", value: "FORMAT", help: "text or json (text)" },
  metrics: {
    long: "metrics",
    value: "ADDR",
    help: "serve metrics, health and a status page on loopback or /PATH",
  },
  metricsPublic: {
    long: "metrics-public",
    help: "allow a --metrics address that other machines can reach",
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
    help: "also answer requests for this host name; repeatable",
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
