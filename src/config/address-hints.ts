/** Hints for wrong addresses, logged after Tarsnap's message, which names neither the address nor a remedy. */
import { isIP } from "node:net";
import { dirname, resolve } from "node:path";
import { formatAddress, type ResolvedAddress } from "../net/address.ts";

/** The highest port that requires privileges by default. */
const LAST_PRIVILEGED_PORT = 1023;

/**
 * Returns what to do about an address that cannot be listened on.
 *
 * @param error - the system's error.
 * @returns undefined if `error` is not a system-call error.
 */
export function bindHint(address: ResolvedAddress, error: unknown): string | undefined {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall === undefined) return undefined;
  const where = formatAddress(address);
  if (address.kind === "unix") {
    switch (code) {
      case "EADDRINUSE":
        return `${where} is in use by a running process, or is not a socket: stop the process, or choose another path`;
      case "ENOENT":
        return `create the directory ${dirname(where)} first`;
      case "EACCES":
        return `no permission to create ${where}: choose a directory that this user can write to`;
      default:
        return `the path is ${where}`;
    }
  }
  switch (code) {
    case "EADDRINUSE":
      return `${where} is in use: stop the process that ss -ltnp shows, or choose another port`;
    case "EADDRNOTAVAIL":
      return `no interface of this machine has the address ${address.host}: use one that ip address lists, or ${anyAddress(address)}`;
    case "EACCES":
      if (address.port > LAST_PRIVILEGED_PORT) break;
      return `${where} is below port ${LAST_PRIVILEGED_PORT + 1}, which needs privileges: start as root with -u USER, or choose a higher port`;
    default:
      break;
  }
  return `the address is ${where}`;
}

function anyAddress({ family, port }: { family: 4 | 6; port: number }): string {
  return `[${family === 6 ? "::" : "0.0.0.0"}]:${port}`;
}

/**
 * Returns what to write instead of an address that cannot be parsed or resolved.
 *
 * @param option - the option that it belongs to, such as `-s`.
 * @returns undefined if the error needs no hint.
 */
export function addressHint(text: string, option: string): string | undefined {
  const port = /^:?(\d+)$/.exec(text)?.[1];
  if (port !== undefined && option === "--metrics") return `use [127.0.0.1]:${port}`;
  if (port !== undefined && option !== "-b") {
    return option === "-s"
      ? `use [127.0.0.1]:${port} to listen on this machine only, [0.0.0.0]:${port} to listen on all its IPv4 addresses`
      : `use HOST:${port}, such as [127.0.0.1]:${port}`;
  }
  const ip = text.replace(/^\[(.*)\]$/, "$1");
  if (isIP(ip) !== 0) return `use ${option === "-b" ? `[${ip}]` : `[${ip}]:PORT`}`;
  if (text.includes("/") && !text.startsWith("/")) {
    return `the path of a UNIX socket must be absolute: ${resolve(text)}`;
  }
  return undefined;
}
