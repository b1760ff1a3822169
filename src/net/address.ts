/** Parses socket addresses given to `-s`, `-t` and `-b` (Tarsnap's `sock_util`). */
import { isIPv4, isIPv6 } from "node:net";
import { SpipedError } from "../errors.ts";

/** A parsed address, not yet resolved. */
export type Address =
  | { readonly kind: "unix"; readonly path: string; readonly text: string }
  | {
      readonly kind: "ip";
      readonly host: string;
      readonly port: number;
      readonly family: 4 | 6;
      readonly text: string;
    }
  | { readonly kind: "name"; readonly host: string; readonly service: string; readonly text: string };

/** An address that can be bound or connected to. */
export type ResolvedAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number; readonly family: 4 | 6 };

/** Returns a resolved address in the syntax of `parseAddress`. */
export function formatAddress(address: ResolvedAddress): string {
  return address.kind === "unix" ? address.path : `[${address.host}]:${address.port}`;
}

/** Invalid address. */
export class AddressError extends SpipedError {
  constructor(message: string) {
    super("ERR_SPIPED_ADDRESS", message);
  }
}

/** Missing address or host, which Tarsnap's spiped treats as a usage error. */
export class EmptyAddressError extends AddressError {}

/** Maximum length of a path in a `sockaddr_un`, in bytes, without the final NUL. */
const MAX_PATH_BYTES = 107;

/**
 * Parses `/absolute/path`, `[IP]:port` or `name:port`.
 *
 * @throws AddressError
 */
export function parseAddress(text: string): Address {
  if (text === "") throw new EmptyAddressError("Empty socket address");
  if (text.startsWith("/")) {
    if (Buffer.byteLength(text) > MAX_PATH_BYTES) throw new AddressError(`socket path too long: ${text}`);
    return { kind: "unix", path: text, text };
  }
  const colon = text.lastIndexOf(":");
  if (colon < 0) throw new AddressError(`Address must contain port number: ${text}`);
  const host = text.slice(0, colon);
  const service = text.slice(colon + 1);
  if (host === "") throw new EmptyAddressError(`No host in "${text}"`);
  if (!host.startsWith("[")) return { kind: "name", host, service, text };
  return parseBracketed(host, text, () => parsePort(service, 1));
}

/**
 * Parses a local address to connect from, in the syntax of `parseAddress`. The port may be omitted or 0; the kernel
 * then chooses one.
 *
 * @throws AddressError
 */
export function parseBindAddress(text: string): Address {
  if (text.startsWith("[")) {
    const bracket = text.lastIndexOf("]");
    const rest = text.slice(bracket + 1);
    if (bracket > 0 && rest === "") return parseBracketed(text, text, () => 0);
    if (bracket > 0 && rest.startsWith(":")) {
      return parseBracketed(text.slice(0, bracket + 1), text, () => parsePort(rest.slice(1), 0));
    }
  }
  const complete = text === "" || text.startsWith("/") || text.includes(":");
  return parseAddress(complete ? text : `${text}:0`);
}

function parseBracketed(host: string, text: string, port: () => number): Address {
  if (!host.endsWith("]")) throw new AddressError(`Invalid [IP address]: ${host}`);
  const ip = host.slice(1, -1);
  const family = ip.includes(":") ? 6 : 4;
  const number = port();
  // isIPv6() accepts a zone, as in fe80::1%eth0; inet_pton(), which Tarsnap's spiped uses, does not.
  if (family === 6 ? !isIPv6(ip) || ip.includes("%") : !isIPv4(ip)) {
    throw new AddressError(`Error parsing IP address: ${ip}`);
  }
  return { kind: "ip", host: ip, port: number, family, text };
}

/** Parses a decimal port. Allows leading white space and a plus sign, as C does. */
function parsePort(text: string, lowest: number): number {
  const port = /^[ \t\n\v\f\r]*\+?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(port >= lowest && port <= 65_535)) throw new AddressError(`Invalid port number: ${text}`);
  return port;
}
