/** Looking addresses up (Tarsnap's `sock_resolve`). */
import { lookup } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { SpipedError } from "../errors.ts";
import type { Address, ResolvedAddress } from "./address.ts";

/** A name that could not be looked up. */
export class ResolveError extends SpipedError {
  constructor(host: string, reason: string) {
    super("ERR_SPIPED_RESOLVE", `Error looking up ${host}: ${reason}`);
  }
}

/** What `gai_strerror` says. Node knows two of the resolver's codes as ENOTFOUND. */
const TEXTS: Record<string, string> = {
  ENOTFOUND: "Name or service not known",
  EAI_AGAIN: "Temporary failure in name resolution",
  EAI_FAIL: "Non-recoverable failure in name resolution",
  EAI_FAMILY: "ai_family not supported",
  EAI_MEMORY: "Memory allocation failure",
};
const UNKNOWN_SERVICE = "Servname not supported for ai_socktype";

/**
 * All IP addresses of a host, in the system's order, none of them twice.
 *
 * @throws ResolveError
 */
export async function lookUpHost(host: string): Promise<{ address: string; family: 4 | 6 }[]> {
  try {
    const found = await lookup(host, { all: true, verbatim: true });
    return found.map(({ address, family }) => ({ address, family: family === 6 ? 6 : 4 }));
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    throw new ResolveError(host, TEXTS[code] ?? message);
  }
}

/**
 * All addresses that a typed one stands for, in the system's order.
 *
 * @throws ResolveError
 */
export async function resolveAddress(address: Address): Promise<ResolvedAddress[]> {
  if (address.kind === "unix") return [{ kind: "unix", path: address.path }];
  if (address.kind === "ip") {
    const { host, port, family } = address;
    return [{ kind: "tcp", host, port, family }];
  }
  const port = await portOf(address.service);
  if (port === undefined) throw new ResolveError(address.host, UNKNOWN_SERVICE);
  const hosts = await lookUpHost(address.host);
  return hosts.map(({ address: host, family }) => ({ kind: "tcp", host, port, family }));
}

/** A service's port: a number, which the system's resolver takes modulo 65536, or a name from /etc/services. */
async function portOf(service: string): Promise<number | undefined> {
  if (/^\s*\+?\d*$/.test(service)) return Number(service) % 65_536;
  const services = await readFile("/etc/services", "utf8").catch(() => "");
  for (const line of services.split("\n")) {
    const [name, port, ...aliases] = line.replace(/#.*/, "").trim().split(/\s+/);
    if (port?.endsWith("/tcp") && (name === service || aliases.includes(service)))
      return Number.parseInt(port, 10);
  }
  return undefined;
}
