/** The library's `connect()`: validates options and calls `connectAddresses`. */
import { isIPv4, isIPv6 } from "node:net";
import type { ResolvedAddress } from "../net/address.ts";
import { formatEndpoint } from "../net/format-endpoint.ts";
import { resolveHost } from "../net/resolve.ts";
import { Secret } from "../protocol/secret.ts";
import { ConnectionRecord } from "../tunnel/connection-event.ts";
import { connectAddresses } from "../tunnel/open-connection.ts";
import type { SpipedSocket } from "../tunnel/spiped-socket.ts";
import { closingOf, reportUntilClosed } from "./report-closed.ts";

/** Default timeout for the connect and for the handshake, in ms; the same as that of `spiped -o`. */
export const DEFAULT_TIMEOUT_MS = 5000;

/** Options of `connect()`. The address is either `host` and `port` (TCP) or `path` (UNIX socket). */
export interface ConnectOptions {
  /** Host name or IP address. Defaults to `localhost`. All addresses of a name are tried in order. */
  readonly host?: string;
  /** TCP port, 1 to 65535. */
  readonly port?: number;
  /** Absolute path of a UNIX socket, instead of `host` and `port`. */
  readonly path?: string;
  /** The shared key, from `loadKey()` or `Secret.fromKeyFile()`. */
  readonly key: Secret;
  /** Timeout for the connect and, separately, for the handshake, in ms. Defaults to 5000; `Infinity` disables it. */
  readonly timeout?: number;
  /** Skip the exponentiations, without forward secrecy, as `spipe -f` does. */
  readonly weak?: boolean;
  /** Reject a server that does not offer forward secrecy, as `spipe -g` does. */
  readonly requireForwardSecrecy?: boolean;
  /** TCP keep-alive. Defaults to true. */
  readonly keepAlive?: boolean;
  /**
   * Keep this side open when the peer half-closes. Defaults to true, unlike `net.connect()`. Set it to false in
   * programs that do not handle 'end'.
   */
  readonly allowHalfOpen?: boolean;
  /** Local IP address to connect from. */
  readonly localAddress?: string;
  /** Aborts the attempt, which rejects with the signal's reason. Has no effect after the handshake. */
  readonly signal?: AbortSignal;
}

/** Number of connections that this process has started to open. */
let lastNumber = 0;

/**
 * Opens an encrypted connection to a `spiped -d`, or to a `createServer()`.
 *
 * @returns the stream, after the handshake.
 * @throws ConnectError if no address accepts in time, ResolveError if the lookup fails, HandshakeError if the handshake
 * fails or times out, TypeError if the options are invalid, the signal's reason if it aborts, the system's error if the
 * connection breaks.
 */
export async function connect(options: ConnectOptions): Promise<SpipedSocket> {
  const { key, timeout = DEFAULT_TIMEOUT_MS, keepAlive = true, localAddress, ...rest } = options;
  if (!Secret.is(key)) throw new TypeError("key must be a Secret, from loadKey() or Secret.fromKeyFile()");
  checkTimeout(timeout);
  checkForwardSecrecy(options);
  checkTarget(options);
  const bind = localAddress === undefined ? undefined : ipAddress(localAddress, 0);
  const record = startRecord(options);
  try {
    const addresses = await resolveTarget(options);
    const socket = await connectAddresses({
      ...rest,
      secret: key,
      timeout,
      keepAlive,
      bind,
      addresses,
      traffic: record.traffic,
      onStep: (step) => {
        if (step === "connected") record.report("connected");
      },
    });
    record.recordHandshake();
    record.report("authenticated");
    socket.allowHalfOpen = options.allowHalfOpen ?? true;
    reportUntilClosed(socket, record);
    return socket;
  } catch (error) {
    record.reportClosed(closingOf(error));
    throw error;
  }
}

/** Returns the record of a connection that is being opened, and reports its start. */
function startRecord({ host = "localhost", port, path }: ConnectOptions): ConnectionRecord {
  lastNumber += 1;
  const record = new ConnectionRecord({
    number: lastNumber,
    tunnel: undefined,
    mode: "encrypt",
    peer: undefined,
    source: undefined,
  });
  record.target = path ?? formatEndpoint(host, port);
  record.report("connecting");
  return record;
}

/** @throws TypeError unless `timeout` is a number of milliseconds above 0. */
export function checkTimeout(timeout: unknown): void {
  if (typeof timeout !== "number" || !(timeout > 0)) {
    throw new TypeError(`timeout must be a number of milliseconds above 0, or Infinity: ${String(timeout)}`);
  }
}

/** @throws TypeError if both are set, which the command line rejects too (`-f` and `-g`). */
export function checkForwardSecrecy({
  weak,
  requireForwardSecrecy,
}: Pick<ConnectOptions, "weak" | "requireForwardSecrecy">): void {
  if (weak && requireForwardSecrecy) {
    throw new TypeError("weak and requireForwardSecrecy cannot be used together");
  }
}

/** @throws TypeError unless a path or a valid port is given. */
function checkTarget({ port, path }: ConnectOptions): void {
  if (path !== undefined) return;
  if (port === undefined || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new TypeError(`port must be an integer from 1 to 65535, or path must be given: ${String(port)}`);
  }
}

/** @throws ResolveError */
async function resolveTarget({
  host = "localhost",
  port = 0,
  path,
}: ConnectOptions): Promise<ResolvedAddress[]> {
  if (path !== undefined) return [{ kind: "unix", path }];
  if (isIPv4(host) || isIPv6(host)) return [ipAddress(host, port)];
  const hosts = await resolveHost(host);
  return hosts.map(({ address, family }) => ({ kind: "tcp", host: address, port, family }));
}

function ipAddress(host: string, port: number): ResolvedAddress {
  if (isIPv4(host)) return { kind: "tcp", host, port, family: 4 };
  if (isIPv6(host)) return { kind: "tcp", host, port, family: 6 };
  throw new TypeError(`not an IP address: ${host}`);
}
