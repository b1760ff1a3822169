/** The library's `connect()`: options as a program likes to give them, in front of `connectAddresses`. */
import { isIPv4, isIPv6 } from "node:net";
import type { ResolvedAddress } from "../net/address.ts";
import { lookUpHost } from "../net/resolve.ts";
import { Secret } from "../protocol/secret.ts";
import { connectAddresses } from "../tunnel/open-connection.ts";
import type { SpipedSocket } from "../tunnel/spiped-socket.ts";

/** Connect and handshake timeout where none is given, ms: that of `spiped -o`. */
export const DEFAULT_TIMEOUT = 5000;

/** Where to connect: TCP (`host` and `port`) or a UNIX socket (`path`), and how. */
export interface ConnectOptions {
  /** Name or IP address; `localhost` if absent. All addresses of a name are tried in order. */
  readonly host?: string;
  /** TCP port, 1 to 65535. */
  readonly port?: number;
  /** Absolute path of a UNIX socket, instead of `host` and `port`. */
  readonly path?: string;
  /** The shared key, from `loadKey()` or `Secret.fromKeyFile()`. */
  readonly key: Secret;
  /** For the connect, and again for the handshake, ms. 5000 if absent; `Infinity` waits for ever. */
  readonly timeout?: number;
  /** Give up forward secrecy to save the exponentiations, as `spipe -f` does. */
  readonly weak?: boolean;
  /** Refuse a server that gives up forward secrecy, as `spipe -g` does. */
  readonly requireForwardSecrecy?: boolean;
  /** TCP keep-alive; on if absent. */
  readonly keepAlive?: boolean;
  /**
   * Whether this side stays open when the peer has half-closed; true if absent, unlike `net.connect()`. A program that
   * does not wait for 'end' wants false.
   */
  readonly allowHalfOpen?: boolean;
  /** Local IP address to connect from. */
  readonly localAddress?: string;
  /** Gives up when aborted, with the signal's reason. Once connected it has no effect. */
  readonly signal?: AbortSignal;
}

/**
 * Opens an encrypted connection to a `spiped -d`, or to a `createServer()`.
 *
 * @returns the stream, after the handshake.
 * @throws ConnectError when no address could be connected to or the time was up, HandshakeError when the server does not
 * hold the key, TypeError when the options make no sense, the system's error when the connection broke.
 */
export async function connect(options: ConnectOptions): Promise<SpipedSocket> {
  const { key, timeout = DEFAULT_TIMEOUT, keepAlive = true, localAddress, ...rest } = options;
  if (!Secret.is(key)) throw new TypeError("key must be a Secret, from loadKey() or Secret.fromKeyFile()");
  checkTimeout(timeout);
  checkForwardSecrecy(options);
  const addresses = await addressesOf(options);
  const bind = localAddress === undefined ? undefined : ipAddress(localAddress, 0);
  const socket = await connectAddresses({ ...rest, secret: key, timeout, keepAlive, bind, addresses });
  socket.allowHalfOpen = options.allowHalfOpen ?? true;
  return socket;
}

/** @throws TypeError unless it is a number of milliseconds above 0. */
export function checkTimeout(timeout: unknown): void {
  if (typeof timeout !== "number" || !(timeout > 0)) {
    throw new TypeError(`timeout must be a number of milliseconds above 0, or Infinity: ${timeout}`);
  }
}

/** @throws TypeError if both are set, as on the command line (`-f` and `-g`). */
export function checkForwardSecrecy({
  weak,
  requireForwardSecrecy,
}: Pick<ConnectOptions, "weak" | "requireForwardSecrecy">): void {
  if (weak && requireForwardSecrecy) {
    throw new TypeError("weak and requireForwardSecrecy exclude each other");
  }
}

async function addressesOf({ host = "localhost", port, path }: ConnectOptions): Promise<ResolvedAddress[]> {
  if (path !== undefined) return [{ kind: "unix", path }];
  if (port === undefined || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new TypeError(`port must be an integer from 1 to 65535, or path be given: ${port}`);
  }
  if (isIPv4(host) || isIPv6(host)) return [ipAddress(host, port)];
  const hosts = await lookUpHost(host);
  return hosts.map(({ address, family }) => ({ kind: "tcp", host: address, port, family }));
}

function ipAddress(host: string, port: number): ResolvedAddress {
  if (isIPv4(host)) return { kind: "tcp", host, port, family: 4 };
  if (isIPv6(host)) return { kind: "tcp", host, port, family: 6 };
  throw new TypeError(`not an IP address: ${host}`);
}
