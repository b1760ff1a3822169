/** Lists of client addresses: single ones and CIDR ranges. */
import { BlockList, isIP } from "node:net";
import { AddressError } from "./address.ts";

/** Stands for all clients of a UNIX socket. */
const UNIX = "unix";

/** Tells whether an address is on the list. */
export class AddressList {
  readonly #ranges = new BlockList();
  #unix = false;

  /**
   * @param entries each an IP address, a range such as `192.0.2.0/24` or `2001:db8::/32`, or `unix`.
   * @throws AddressError
   */
  constructor(entries: Iterable<string>) {
    for (const entry of entries) this.#add(entry);
  }

  /** @param address of a TCP client; undefined for one of a UNIX socket. */
  includes(address: string | undefined): boolean {
    if (address === undefined) return this.#unix;
    const plain = address.replace(/^::ffff:(?=\d+\.)/i, "");
    return this.#ranges.check(plain, isIP(plain) === 6 ? "ipv6" : "ipv4");
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
