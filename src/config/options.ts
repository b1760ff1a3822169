/**
 * The option table: every option of both programs, and every field of the files. The command line, the help text, the
 * TOML schema, the option sections of the manual pages, the completions and the reference are derived from it.
 */
import type { OptionSpec, SettingSpec } from "./option-spec.ts";
import {
  ADDRESS,
  ADDRESSES,
  CIDRS,
  CONFIG_FILE,
  COUNT,
  choice,
  DATE,
  FILE,
  FLAG,
  HOST_NAMES,
  MODE,
  PATH,
  seconds,
  TEXT,
  USER,
  WORKERS,
} from "./option-types.ts";

/** The daemon's name in messages. */
export const PROGRAM = "spiped";

/** Groups of options, in the order in which they are listed. */
const GROUP = {
  tunnel: "Addresses and key",
  security: "Security",
  limits: "Limits and timeouts",
  proxyProtocol: "PROXY protocol",
  unixSocket: "UNIX socket to listen on",
  configuration: "Configuration file",
  process: "Process",
  monitoring: "Log and monitoring",
  keys: "Keys",
  spipe: "Behavior",
  help: "Help",
} as const;

/** Returns options by their groups, in the order in which they are listed. */
export function groupOptions(specs: readonly OptionSpec[]): [group: string, specs: OptionSpec[]][] {
  return Object.values(GROUP)
    .map((group): [string, OptionSpec[]] => [group, specs.filter((spec) => spec.group === group)])
    .filter(([, { length }]) => length > 0);
}

/** Default of `-o`, in ms. */
const DEFAULT_TIMEOUT_MS = 5000;

/** Default of `-r`, in ms. */
const DEFAULT_RESOLVE_INTERVAL_MS = 60_000;

/** Options that both programs have. */
const SHARED_OPTIONS = {
  target: {
    group: GROUP.tunnel,
    short: "t",
    long: "target",
    value: "ADDR",
    type: ADDRESSES,
    required: "address to connect to",
    isOriginal: true,
    help: "address to connect to: [IP]:PORT, NAME:PORT or /PATH",
    manual: ["Address to connect to."],
  },
  key: {
    group: GROUP.tunnel,
    short: "k",
    long: "key",
    value: "FILE",
    type: PATH,
    required: "file with the shared key",
    isOriginal: true,
    help: "file with the shared key; - for standard input",
    manual: [
      "File with the shared key.",
      "It can have any contents; 32 random bytes are sufficient.",
      "An empty file is rejected; a file of fewer than 32 bytes causes a warning.",
      ".Ql -",
      "reads the key from standard input.",
      "With",
      ".Fl d",
      "this may be a directory of keys; see",
      ".Sx KEYS .",
    ],
  },
  bind: {
    group: GROUP.tunnel,
    short: "b",
    long: "bind",
    value: "ADDR",
    type: TEXT,
    isOriginal: true,
    help: "local address for outgoing connections: IP, [IP]:PORT, NAME",
    manual: ["Connect to the target from this local address, with or without a port."],
  },
  weakHandshake: {
    group: GROUP.security,
    short: "f",
    long: "weak-handshake",
    excludes: "require-forward-secrecy",
    type: FLAG,
    default: false,
    isOriginal: true,
    help: "skip Diffie-Hellman: faster, but no forward secrecy",
    manual: [
      "Skip the Diffie-Hellman exchange.",
      "This is less work for each connection, but anyone who later learns the key can decrypt recorded traffic.",
    ],
  },
  requireForwardSecrecy: {
    group: GROUP.security,
    short: "g",
    long: "require-forward-secrecy",
    type: FLAG,
    default: false,
    isOriginal: true,
    help: "reject peers that use -f",
    manual: ["Reject peers that use", ".Fl f ."],
  },
  noKeepAlive: {
    group: GROUP.limits,
    short: "j",
    long: "no-keepalive",
    type: FLAG,
    default: false,
    isOriginal: true,
    help: "no TCP keep-alive",
    manual: ["Disable TCP keep-alive."],
  },
  timeout: {
    group: GROUP.limits,
    short: "o",
    long: "timeout",
    value: "SECONDS",
    type: seconds(DEFAULT_TIMEOUT_MS),
    default: DEFAULT_TIMEOUT_MS,
    isOriginal: true,
    help: "timeout for the connect and, separately, for the handshake (5)",
    manual: [
      "Timeout for connecting and, separately, for the handshake (default 5 seconds).",
      "With",
      ".Fl e ,",
      "8 to 256 connections to the target are opened at a time, depending on how quickly they complete.",
      "The time for which other connections are queued is not counted as long as some succeed.",
    ],
  },
  version: {
    group: GROUP.help,
    short: "v",
    long: "version",
    type: FLAG,
    isOriginal: true,
    help: "print the version",
    manual: ["Print the version."],
  },
  help: {
    group: GROUP.help,
    short: "h",
    long: "help",
    type: FLAG,
    help: "print this help",
    manual: ["Print a summary of the options."],
  },
} as const satisfies Record<string, OptionSpec>;

/** Options of `spipe`. */
export const SPIPE_OPTIONS = {
  target: {
    ...SHARED_OPTIONS.target,
    manual: ["Address to connect to, in the format described in", ".Xr spiped 1 ."],
  },
  key: {
    ...SHARED_OPTIONS.key,
    manual: ["File with the shared key.", ".Ql -", "reads the key from standard input, up to its end."],
  },
  bind: { ...SHARED_OPTIONS.bind, manual: ["Connect from this local address, with or without a port."] },
  weakHandshake: {
    ...SHARED_OPTIONS.weakHandshake,
    manual: ["Skip the Diffie-Hellman exchange, which gives up forward secrecy."],
  },
  requireForwardSecrecy: {
    ...SHARED_OPTIONS.requireForwardSecrecy,
    manual: ["Reject a server that uses", ".Fl f ."],
  },
  noKeepAlive: SHARED_OPTIONS.noKeepAlive,
  timeout: {
    ...SHARED_OPTIONS.timeout,
    manual: ["Timeout for connecting and, separately, for the handshake (default 5 seconds)."],
  },
  fragile: {
    group: GROUP.spipe,
    long: "fragile",
    type: FLAG,
    default: false,
    help: "exit on peer EOF, even if standard input stays open",
    manual: [
      "Exit when the peer has closed its direction and all received data is written, even if standard input is still open.",
    ],
  },
  verbose: {
    group: GROUP.spipe,
    long: "verbose",
    type: FLAG,
    default: false,
    help: "report each step of the connection on standard error",
    manual: [
      "Report each step on standard error, with the time since startup: the addresses, the connect, the handshake, the end of",
      "each direction, and the number of bytes sent and received.",
    ],
  },
  version: SHARED_OPTIONS.version,
  help: SHARED_OPTIONS.help,
} as const satisfies Record<string, OptionSpec>;

/** Settings of a tunnel: options of `spiped`, or fields of `[tunnels.NAME]`. */
export const TUNNEL_OPTIONS = {
  encrypt: {
    group: GROUP.tunnel,
    short: "e",
    long: "encrypt",
    excludes: "decrypt",
    type: FLAG,
    default: false,
    isOriginal: true,
    help: "accept plaintext connections, connect to the target encrypted",
    manual: ["Accept plaintext connections and connect to the target encrypted."],
  },
  decrypt: {
    group: GROUP.tunnel,
    short: "d",
    long: "decrypt",
    type: FLAG,
    default: false,
    isOriginal: true,
    help: "accept encrypted connections, connect to the target in plaintext",
    manual: [
      "Accept encrypted connections and connect to the target in plaintext.",
      "Connects to the target only after the client has proved that it holds the key.",
    ],
  },
  source: {
    group: GROUP.tunnel,
    short: "s",
    long: "source",
    value: "ADDR",
    type: ADDRESS,
    required: "address to listen on",
    isOriginal: true,
    help: "address to listen on: [IP]:PORT, NAME:PORT or /PATH",
    manual: ["Address to listen on.", "If a host name has several addresses, the first is used."],
  },
  target: SHARED_OPTIONS.target,
  key: {
    ...SHARED_OPTIONS.key,
    help: "file with the shared key; - for standard input; with -d also a directory of keys, one or more per client",
  },
  bind: SHARED_OPTIONS.bind,
  weakHandshake: SHARED_OPTIONS.weakHandshake,
  requireForwardSecrecy: SHARED_OPTIONS.requireForwardSecrecy,
  noKeepAlive: SHARED_OPTIONS.noKeepAlive,
  maxConnections: {
    group: GROUP.limits,
    short: "n",
    long: "max-connections",
    value: "N",
    type: COUNT,
    default: 100,
    isOriginal: true,
    help: "simultaneous connections; 0 for no limit (100)",
    manual: [
      "Maximum number of simultaneous connections (default 100); 0 means no limit.",
      "Up to 1024 further connections are queued for each tunnel in each worker process; any beyond that are closed.",
    ],
  },
  timeout: SHARED_OPTIONS.timeout,
  resolveInterval: {
    group: GROUP.limits,
    short: "r",
    long: "resolve-interval",
    excludes: "no-resolve",
    value: "SECONDS",
    type: seconds(DEFAULT_RESOLVE_INTERVAL_MS),
    default: DEFAULT_RESOLVE_INTERVAL_MS,
    isOriginal: true,
    help: "interval between lookups of the target (60)",
    manual: [
      "Interval between DNS lookups of the target (default 60 seconds).",
      "If a lookup fails, the previous result is kept.",
    ],
  },
  noResolve: {
    group: GROUP.limits,
    short: "R",
    long: "no-resolve",
    type: FLAG,
    default: false,
    isOriginal: true,
    help: "look up the target only at startup and on reload",
    manual: ["Look up the target's name only at startup and on reload."],
  },
  failoverTarget: {
    group: GROUP.tunnel,
    long: "failover-target",
    value: "ADDR",
    type: ADDRESSES,
    repeatable: true,
    help: "address to connect to if the target fails; repeatable",
    manual: [
      "Address to connect to if the target fails; may be given several times, in order of preference.",
      "A target that has failed is tried after all others for 30 seconds.",
    ],
  },
  idleTimeout: {
    group: GROUP.limits,
    long: "idle-timeout",
    value: "SECONDS",
    type: seconds(Number.POSITIVE_INFINITY),
    default: Number.POSITIVE_INFINITY,
    help: "close connections without traffic",
    manual: ["Close connections that have carried no data for this long; 0, the default, means never."],
  },
  allow: {
    group: GROUP.security,
    long: "allow",
    value: "CIDR",
    type: CIDRS,
    repeatable: true,
    help: "accept clients only from these addresses; repeatable",
    manual: [
      "Accept only clients from this address or range, such as 192.0.2.0/24; may be given several times.",
      ".Ql unix",
      "matches clients of a UNIX socket.",
    ],
  },
  acceptProxy: {
    group: GROUP.proxyProtocol,
    long: "accept-proxy",
    value: "CIDR",
    type: CIDRS,
    repeatable: true,
    help: "expect a PROXY protocol header from these addresses; repeatable",
    manual: [
      "Expect a PROXY protocol header (version 1 or 2) at the start of each connection from this address or range, and use the",
      "client address in it; may be given several times.",
      "No header is expected from other addresses.",
    ],
  },
  sendProxy: {
    group: GROUP.proxyProtocol,
    long: "send-proxy",
    value: "VERSION",
    type: choice("v1", "v2"),
    help: "send the target a PROXY protocol header, v1 or v2",
    manual: [
      "Send a PROXY protocol header to the target at the start of each connection.",
      "Version 2 includes the name of the client's key as a TLV of type 0xE0.",
    ],
  },
  penaltyExempt: {
    group: GROUP.security,
    long: "penalty-exempt",
    value: "CIDR",
    type: CIDRS,
    repeatable: true,
    help: "never penalize these addresses for failed handshakes; repeatable",
    manual: [
      "Never penalize this address or range for failed handshakes; may be given several times.",
      "See",
      ".Sx UNAUTHENTICATED CLIENTS .",
    ],
  },
  socketMode: {
    group: GROUP.unixSocket,
    long: "socket-mode",
    value: "MODE",
    type: MODE,
    help: "permissions of a UNIX source, such as 0660",
    manual: ["Permissions with which a UNIX source is created, such as 0660."],
  },
  socketOwner: {
    group: GROUP.unixSocket,
    long: "socket-owner",
    value: "SPEC",
    type: USER,
    help: "owner of a UNIX source, as for -u",
    manual: [
      "Owner of a UNIX source.",
      "Only root and the user who runs",
      ".Nm",
      "may be able to replace the socket: its directory and all parent directories must be owned by one of them, and must",
      "either be writable by no one else or have the sticky bit.",
    ],
  },
} as const satisfies Record<string, OptionSpec>;

/** Settings of the process: options of `spiped`, or fields at the top of the configuration file. */
export const PROCESS_OPTIONS = {
  waitForDns: {
    group: GROUP.process,
    short: "D",
    long: "wait-for-dns",
    type: FLAG,
    default: false,
    isOriginal: true,
    help: "start immediately and retry DNS lookups every second",
    manual: ["Daemonize immediately, and retry DNS lookups until they succeed."],
  },
  pidFile: {
    group: GROUP.process,
    short: "p",
    long: "pid-file",
    value: "FILE",
    type: PATH,
    isOriginal: true,
    help: "pid file (source address or configuration file, plus .pid)",
    manual: [
      "File for the daemon's process ID; defaults to the source address, or the name of the configuration file, with",
      ".Pa .pid",
      "appended.",
      "It must not be a link.",
      "If",
      ".Nm",
      "runs as root, no other user may be able to replace the directory that contains it.",
    ],
  },
  user: {
    group: GROUP.process,
    short: "u",
    long: "user",
    value: "SPEC",
    type: USER,
    isOriginal: true,
    help: "run as user, :group or user:group",
    manual: [
      "Switch to this user and group after binding the socket and reading the key.",
      "If only a user is given, its primary and supplementary groups are used.",
    ],
  },
  drainTimeout: {
    group: GROUP.process,
    long: "drain-timeout",
    value: "SECONDS",
    type: seconds(Number.POSITIVE_INFINITY),
    default: Number.POSITIVE_INFINITY,
    help: "close open connections this long after SIGTERM; 0 for never",
    manual: [
      "Close the connections that are still open this long after SIGTERM or SIGINT, and exit.",
      "By default, and with 0, the daemon waits until all connections have closed.",
    ],
  },
  noWarmUp: {
    group: GROUP.process,
    long: "no-warm-up",
    type: FLAG,
    default: false,
    help: "accept connections before their code is compiled",
    manual: [
      "Do not compile the code that connections use before accepting the first one.",
      "By default, each process that serves connections runs a few within itself when it starts,",
      "for up to 50 milliseconds of processor time, because the first connection would otherwise be slow.",
      "A daemon that was given a listening socket by the service manager never does so, since a connection may be waiting.",
    ],
  },
  workers: {
    group: GROUP.process,
    long: "workers",
    value: "N",
    type: WORKERS,
    default: 1,
    help: "worker processes; auto for one per core (1)",
    manual: [
      "Number of worker processes (default 1);",
      ".Cm auto",
      "starts one per core.",
      ".Fl n",
      "limits the total number of connections of all workers.",
    ],
  },
  syslog: {
    group: GROUP.monitoring,
    long: "syslog",
    type: FLAG,
    default: false,
    isOriginal: true,
    help: "log to syslog",
    manual: [
      "Send messages to the system log; with",
      ".Fl F ,",
      "also to standard error.",
      "They are sent with",
      ".Xr logger 1",
      "in",
      ".Pa /usr/bin",
      "or",
      ".Pa /bin .",
    ],
  },
  logLevel: {
    group: GROUP.monitoring,
    long: "log-level",
    value: "LEVEL",
    type: choice("warn", "info"),
    default: "warn",
    help: "warn, or info to log each connection (warn)",
    manual: [
      "With",
      ".Cm warn ,",
      "the default, each failed connection is logged in one line with the reason and what to check.",
      "Repeats for the same client address, tunnel and kind of failure are counted and logged at increasing intervals, from one",
      "minute to one hour.",
      "With",
      ".Cm info ,",
      "each connection is also logged when it opens and when it closes, with the client, its key, the target, the bytes in both",
      "directions and the reason.",
      "This level also logs the start of the daemon, the addresses it listens on, reloads, the number of remaining connections",
      "during a drain, and the exit.",
    ],
  },
  logFormat: {
    group: GROUP.monitoring,
    long: "log-format",
    value: "FORMAT",
    type: choice("text", "json"),
    default: "text",
    help: "text or json (text)",
    manual: [
      "Format of messages on standard error.",
      "If they are not read, up to 256 KiB are buffered; further messages are dropped, and their number is logged when reading",
      "resumes.",
    ],
  },
  metrics: {
    group: GROUP.monitoring,
    long: "metrics",
    value: "ADDR",
    type: ADDRESS,
    help: "serve metrics, health and a status page on loopback or /PATH",
    manual: [
      "Serve",
      ".Pa /metrics",
      "for Prometheus,",
      ".Pa /healthz",
      "and",
      ".Pa /readyz",
      "for probes, and a status page at",
      ".Pa /",
      "over HTTP, on a loopback address or a UNIX socket.",
      ".Pa /readyz",
      "returns 200 if all tunnels are ready, and otherwise 503 with a line for each tunnel that is not;",
      ".Pa /readyz/NAME",
      "reports one tunnel.",
      "A tunnel defined on the command line is named",
      ".Li default .",
      ".Pa /healthz",
      "returns 503 only if no worker process responds; if some respond, those that do not are listed.",
      "Over TCP, requests must name an IP address,",
      ".Li localhost ,",
      "the name in",
      ".Ar address ,",
      "or a name given with",
      ".Fl -metrics-host",
      "in their Host header, so that web pages cannot read the metrics through a visitor's browser.",
    ],
  },
  metricsPublic: {
    group: GROUP.monitoring,
    long: "metrics-public",
    type: FLAG,
    default: false,
    help: "allow a --metrics address that other machines can reach",
    manual: [
      "Allow",
      ".Fl -metrics",
      "to use an address that other machines can reach.",
      "Nothing is encrypted, and without",
      ".Fl -metrics-token-file",
      "anyone who can connect to the address can read the metrics and the status page.",
    ],
  },
  metricsTokenFile: {
    group: GROUP.monitoring,
    long: "metrics-token-file",
    value: "FILE",
    type: FILE,
    help: "require the bearer token in this file for metrics and status page",
    manual: [
      "Require the bearer token in this file for",
      ".Pa /metrics",
      "and the status page: 16 or more visible ASCII characters, such as the output of",
      ".Ql openssl rand -hex 32 .",
      ".Pa /healthz",
      "and",
      ".Pa /readyz",
      "need no token, but include details only with it.",
      "The file is read again on SIGHUP.",
    ],
  },
  metricsHost: {
    group: GROUP.monitoring,
    long: "metrics-host",
    value: "NAME",
    type: HOST_NAMES,
    repeatable: true,
    help: "also accept requests for this host name; repeatable",
    manual: ["Also accept requests for this host name; may be given several times."],
  },
} as const satisfies Record<string, OptionSpec>;

/** Options of `spiped` that are for the command line only. */
export const COMMAND_OPTIONS = {
  config: {
    group: GROUP.configuration,
    long: "config",
    value: "FILE",
    type: CONFIG_FILE,
    help: "read tunnels and process settings from a file",
    manual: ["Read tunnels and process settings from a file; see", ".Sx CONFIGURATION FILE ."],
  },
  checkConfig: {
    group: GROUP.configuration,
    long: "check-config",
    type: FLAG,
    help: "check the configuration file and the keys and names in it, and exit",
    manual: [
      "Check the configuration file and the names and keys in it, report errors, and exit.",
      "Addresses are not bound.",
    ],
  },
  foreground: {
    group: GROUP.process,
    short: "F",
    long: "foreground",
    type: FLAG,
    isOriginal: true,
    help: "stay in the foreground; no pid file",
    manual: ["Stay in the foreground and do not write a pid file."],
  },
  generateKey: {
    group: GROUP.keys,
    long: "generate-key",
    value: "FILE",
    type: FILE,
    help: "create a key, and exit",
    manual: [
      "Write a new key of 32 random bytes to a file that only its owner can read, and exit.",
      "An existing file is never overwritten.",
    ],
  },
  checkKey: {
    group: GROUP.keys,
    long: "check-key",
    value: "FILE",
    type: FILE,
    help: "show size, permissions and fingerprint of a key, and exit",
    manual: [
      "Print a key's size, permissions and fingerprint, and exit.",
      "Two files with the same key have the same fingerprint.",
      "A fingerprint reveals nothing about a random key, but allows guesses of the key to be tested: the fingerprint of a",
      "password, or of a key derived from one, must be kept as secret as the key.",
    ],
  },
  version: SHARED_OPTIONS.version,
  help: SHARED_OPTIONS.help,
} as const satisfies Record<string, OptionSpec>;

/** Options of `spiped`. */
export const SPIPED_OPTIONS = {
  ...TUNNEL_OPTIONS,
  ...COMMAND_OPTIONS,
  ...PROCESS_OPTIONS,
} as const;

/** Settings of one client: fields of `NAME.toml` in a key directory, or of `[tunnels.NAME.keys.CLIENT]`. */
export const CLIENT_SETTINGS = {
  targets: {
    long: "target",
    type: ADDRESSES,
    help: "address to connect to, instead of the tunnel's targets",
    manual: ["the address to connect to, or a list of addresses;"],
  },
  maxConnections: {
    long: "max-connections",
    type: COUNT,
    help: "simultaneous connections of the client, in addition to the tunnel's limit",
    manual: ["the maximum number of simultaneous connections;"],
  },
  expires: {
    long: "expires",
    type: DATE,
    help: "date from which the client is rejected",
    manual: ["the date from which the client is rejected."],
  },
} as const satisfies Record<string, SettingSpec>;

/** A command of `spiped keys`. */
export interface KeyCommandSpec {
  /** What it needs besides the directory. */
  readonly operand?: { readonly name: string; readonly forms: readonly string[] };
  readonly help: string;
  readonly manual: readonly string[];
}

/** Commands of `spiped keys`. */
export const KEY_COMMANDS = {
  list: {
    help: "show all keys: client, fingerprint, age, expiry, restrictions",
    manual: [
      "List all keys with fingerprint, age, expiry date and the restrictions in",
      ".Pa NAME.toml ,",
      "and report problems with other files.",
    ],
  },
  show: {
    operand: { name: "name", forms: ["name"] },
    help: "show the keys of one client",
    manual: ["Do the same for one client."],
  },
  add: {
    operand: { name: "name", forms: ["name"] },
    help: "create the first key of a client",
    manual: ["Create the first key of a client,", ".Pa NAME.key ."],
  },
  rotate: {
    operand: { name: "name", forms: ["name"] },
    help: "create an additional key for a client",
    manual: ["Create an additional key for a client,", ".Pa NAME.DATE.key ,", "and keep its existing keys."],
  },
  revoke: {
    operand: { name: "key", forms: ["name", "file", "fingerprint"] },
    help: "remove a key",
    manual: ["Remove a key.", "A client name is rejected if the client has several keys."],
  },
} as const satisfies Record<string, KeyCommandSpec>;
