/** Socket addresses as they are typed for `-s`, `-t` and `-b` (Tarsnap's `sock_util`). */
import { isIPv4, isIPv6 } from "node:net";
import { SpipedError } from "../errors.ts";

/** An address that was read but not looked up. */
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

/** A resolved address as `parseAddress` reads it. */
export function formatAddress(address: ResolvedAddress): string {
  return address.kind === "unix" ? address.path : `[${address.host}]:${address.port}`;
}

/** An address that can't be read. */
export class AddressError extends SpipedError {
  constructor(message: string) {
    super("ERR_SPIPED_ADDRESS", message);
  }
}

/** An address that is missing altogether, which the original takes for a wrong command line. */
export class EmptyAddressError extends AddressError {}

/** The longest path that fits into a `sockaddr_un`, bytes. */
const LONGEST_PATH = 107;

/**
 * Reads `/absolute/path`, `[IP]:port` or `name:port`.
 *
 * @throws AddressError
 */
export function parseAddress(text: string): Address {
  if (text === "") throw new EmptyAddressError("Empty socket address");
  if (text.startsWith("/")) {
    if (Buffer.byteLength(text) > LONGEST_PATH) throw new AddressError(`socket path too long: ${text}`);
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
 * Reads a local address to connect from: as `parseAddress`, but the port may be absent or 0, and then the system
 * chooses one.
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
  // A zone, as in fe80::1%eth0, is none of `inet_pton`'s business.
  if (family === 6 ? !isIPv6(ip) || ip.includes("%") : !isIPv4(ip)) {
    throw new AddressError(`Error parsing IP address: ${ip}`);
  }
  return { kind: "ip", host: ip, port: number, family, text };
}

/** A port in decimal; leading blanks and a plus sign pass, as in C. */
function parsePort(text: string, lowest: number): number {
  const port = /^[ \t\n\v\f\r]*\+?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(port >= lowest && port <= 65_535)) throw new AddressError(`Invalid port number: ${text}`);
  return port;
}
