/** What limits and penalties take for one client: an IPv4 address, or a /64 network of IPv6, which one host may own. */
import { isIPv6 } from "node:net";

/** Stands for all clients of UNIX sockets. */
const UNIX_SOURCE = "unix";

/**
 * Returns the source of a client's address. An IPv4 address that is mapped into IPv6 is the IPv4 address; the clients on
 * one link have their whole link-local addresses, since they share the prefix.
 *
 * @param address of a TCP client; undefined for one of a UNIX socket.
 */
export function sourceOf(address: string | undefined): string {
  if (address === undefined) return UNIX_SOURCE;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped !== null) return mapped[1]!;
  if (!isIPv6(address) || /^fe[89ab]/i.test(address)) return address;
  const [front = "", back] = address.toLowerCase().split("::");
  const groups = front === "" ? [] : front.split(":");
  if (back !== undefined) {
    const tail = back === "" ? [] : back.split(":");
    // A dotted quad at the end stands for two groups.
    const length = tail.length + (back.includes(".") ? 1 : 0);
    while (groups.length + length < 8) groups.push("0");
    groups.push(...tail);
  }
  const network = groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `${network.join(":")}::/64`;
}
