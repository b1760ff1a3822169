/** Who may read the status server: the names that it answers to, and a bearer token. */
import { createHash, timingSafeEqual } from "node:crypto";
import { BlockList, isIP, isIPv4 } from "node:net";
import type { ResolvedAddress } from "../../net/address.ts";

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** True if other machines may reach an address. */
export function isExposed(address: ResolvedAddress): boolean {
  return address.kind === "tcp" && !LOOPBACK.check(address.host, isIPv4(address.host) ? "ipv4" : "ipv6");
}

/**
 * True if a request's Host header names this server. A web page can make its reader's browser send requests here by
 * pointing a name of its own at our address (DNS rebinding), and the Host header has that name then. It cannot do so with
 * an IP address, nor without a Host header, which all browsers send.
 *
 * @param names that the server has besides `localhost`.
 */
export function isHostAllowed(host: string | undefined, names: readonly string[]): boolean {
  if (host === undefined || host === "") return true;
  const [, ipv6, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host) ?? [];
  if (ipv6 !== undefined) return isIP(ipv6) === 6;
  if (name === undefined) return false;
  if (isIP(name) === 4) return true;
  const plain = (text: string) => text.toLowerCase().replace(/\.$/, "");
  return ["localhost", ...names].some((known) => plain(known) === plain(name));
}

/** A token that requests must bear (RFC 6750), of which only the hash is kept. */
export class BearerToken {
  readonly #hash: Buffer;

  /** @param token the bytes of the token; the caller overwrites them. */
  constructor(token: Uint8Array) {
    this.#hash = hash(token);
  }

  /** True if an Authorization header bears the token. */
  matches(authorization: string | undefined): boolean {
    const [, token] = /^Bearer +(\S+) *$/i.exec(authorization ?? "") ?? [];
    // Hashes are compared, so the time tells neither the token's length nor its first bytes.
    return token !== undefined && timingSafeEqual(hash(Buffer.from(token)), this.#hash);
  }
}

function hash(token: Uint8Array): Buffer {
  return createHash("sha256").update(token).digest();
}
