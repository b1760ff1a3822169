/** Lists of client addresses and CIDR ranges. */
import { BlockList, isIP } from "node:net";
import { AddressError } from "./address.ts";

/** Entry that matches all clients of UNIX sockets. */
const UNIX = "unix";

/** A list of addresses and CIDR ranges. */
export class AddressList {
  readonly #ranges = new BlockList();
  #unix = false;

  /**
   * @param entries - IP addresses, ranges such as `192.0.2.0/24` or `2001:db8::/32`, or `unix`.
   * @throws AddressError
   */
  constructor(entries: Iterable<string>) {
    for (const entry of entries) this.#add(entry);
  }

  /**
   * Returns true if an address is on the list.
   *
   * @param address - a TCP client's address; undefined for a client of a UNIX socket.
   */
  includes(address: string | undefined): boolean {
    if (address === undefined) return this.#unix;
    const unmapped = address.replace(/^::ffff:(?=\d+\.)/i, "");
    return this.#ranges.check(unmapped, isIP(unmapped) === 6 ? "ipv6" : "ipv4");
  }

  #add(entry: string): void {
    if (entry === UNIX) {
      this.#unix = true;
      return;
    }
    const [address = "", prefix, ...rest] = entry.split("/");
    const version = isIP(address);
    const longest = version === 6 ? 128 : 32;
    const bits = prefix === undefined ? longest : Number(prefix);
    const wellFormed =
      version !== 0 && rest.length === 0 && (prefix === undefined || /^\d{1,3}$/.test(prefix));
    if (!wellFormed || bits > longest) {
      throw new AddressError(`not an IP address, a range such as 192.0.2.0/24, or unix: ${entry}`);
    }
    this.#ranges.addSubnet(address, bits, version === 6 ? "ipv6" : "ipv4");
  }
}
