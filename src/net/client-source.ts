/** A client's source, the unit of limits and penalties: an IPv4 address, or an IPv6 /64, which one host may own. */
import { isIPv6 } from "node:net";

/** Source of all clients of UNIX sockets. */
const UNIX_SOURCE = "unix";

/**
 * Returns the source of a client. An IPv4-mapped address counts as IPv4. A link-local address counts in full, since all
 * hosts on a link share the prefix.
 *
 * @param address - a TCP client's address; undefined for a client of a UNIX socket.
 */
export function sourceOf(address: string | undefined): string {
  if (address === undefined) return UNIX_SOURCE;
  if (!address.includes(":")) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped !== null) return mapped[1]!;
  if (!isIPv6(address) || /^fe[89ab]/i.test(address)) return address;
  const [front = "", back] = address.toLowerCase().split("::");
  const groups = front === "" ? [] : front.split(":");
  if (back !== undefined) {
    const tail = back === "" ? [] : back.split(":");
    // A trailing dotted quad is two groups.
    const length = tail.length + (back.includes(".") ? 1 : 0);
    while (groups.length + length < 8) groups.push("0");
    groups.push(...tail);
  }
  const network = groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `${network.join(":")}::/64`;
}
