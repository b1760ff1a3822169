/** Access control of the status server: allowed Host headers and the bearer token. */
import { createHash, timingSafeEqual } from "node:crypto";
import { BlockList, isIP, isIPv4 } from "node:net";
import type { ResolvedAddress } from "../../net/address.ts";

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** Returns true if other machines may be able to reach an address. */
export function isExposed(address: ResolvedAddress): boolean {
  return address.kind === "tcp" && !LOOPBACK.check(address.host, isIPv4(address.host) ? "ipv4" : "ipv6");
}

/**
 * Returns true if a request's Host header is allowed. This prevents DNS rebinding: a web page can make a browser send
 * requests here by resolving its own name to our address, but the Host header then has that name. The attack is not
 * possible with an IP address as host, or without a Host header, which all browsers send.
 *
 * @param names - allowed names, in addition to `localhost`.
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

/** A bearer token (RFC 6750), of which only the hash is kept. */
export class BearerToken {
  readonly #hash: Buffer;

  /** @param token - the bytes of the token, which the caller should overwrite afterwards. */
  constructor(token: Uint8Array) {
    this.#hash = hash(token);
  }

  /** Returns true if an Authorization header has the token. */
  matches(authorization: string | undefined): boolean {
    const [, token] = /^Bearer +(\S+) *$/i.exec(authorization ?? "") ?? [];
    // Comparing hashes leaks neither the token's length nor its first bytes through timing.
    return token !== undefined && timingSafeEqual(hash(Buffer.from(token)), this.#hash);
  }
}

function hash(token: Uint8Array): Buffer {
  return createHash("sha256").update(token).digest();
}
