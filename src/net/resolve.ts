/** Resolves addresses (Tarsnap's `sock_resolve`). */
import { SpipedError } from "../errors.ts";
import type { Address, ResolvedAddress } from "./address.ts";
import { readFile } from "./async-fs.ts";

/** Host or service name that could not be resolved. */
export class ResolveError extends SpipedError {
  constructor(host: string, reason: string) {
    super("ERR_SPIPED_RESOLVE", `Error looking up ${host}: ${reason}`);
  }
}

/** Texts of `gai_strerror`. Node reports both EAI_NONAME and EAI_NODATA as ENOTFOUND. */
const TEXTS: Record<string, string> = {
  ENOTFOUND: "Name or service not known",
  EAI_AGAIN: "Temporary failure in name resolution",
  EAI_FAIL: "Non-recoverable failure in name resolution",
  EAI_FAMILY: "ai_family not supported",
  EAI_MEMORY: "Memory allocation failure",
};
const UNKNOWN_SERVICE = "Servname not supported for ai_socktype";

/**
 * Returns the IP addresses of a host in the order of the system's resolver.
 *
 * @throws ResolveError
 */
export async function resolveHost(host: string): Promise<{ address: string; family: 4 | 6 }[]> {
  // Loaded only for names.
  const { lookup } = await import("node:dns/promises");
  try {
    const found = await lookup(host, { all: true, verbatim: true });
    return found.map(({ address, family }) => ({ address, family: family === 6 ? 6 : 4 }));
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    throw new ResolveError(host, TEXTS[code] ?? message);
  }
}

/**
 * Resolves an address to socket addresses in the order of the system's resolver.
 *
 * @throws ResolveError
 */
export async function resolveAddress(address: Address): Promise<ResolvedAddress[]> {
  if (address.kind === "unix") return [{ kind: "unix", path: address.path }];
  if (address.kind === "ip") {
    const { host, port, family } = address;
    return [{ kind: "tcp", host, port, family }];
  }
  const port = await resolvePort(address.service);
  if (port === undefined) throw new ResolveError(address.host, UNKNOWN_SERVICE);
  const hosts = await resolveHost(address.host);
  return hosts.map(({ address: host, family }) => ({ kind: "tcp", host, port, family }));
}

/** Returns the port of a service: a number, modulo 65536 as in `getaddrinfo`, or a name from /etc/services. */
async function resolvePort(service: string): Promise<number | undefined> {
  if (/^\s*\+?\d*$/.test(service)) return Number(service) % 65_536;
  const services = await readFile("/etc/services", "utf8").catch(() => "");
  for (const line of services.split("\n")) {
    const [name, port, ...aliases] = line.replace(/#.*/, "").trim().split(/\s+/);
    if (port?.endsWith("/tcp") && (name === service || aliases.includes(service)))
      return Number.parseInt(port, 10);
  }
  return undefined;
}
