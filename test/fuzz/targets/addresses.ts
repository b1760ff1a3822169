/**
 * Addresses and ranges of addresses, as options and fields. The input is the text.
 *
 * What is accepted can be written and parsed again with the same result; what is rejected is rejected with an error of
 * our class. A range contains exactly the addresses that have its prefix.
 */
import { isIP, isIPv4 } from "node:net";
import { resolveOption } from "../../../src/config/addresses.ts";
import { ConfigError, UsageError } from "../../../src/config/config-error.ts";
import {
  type Address,
  AddressError,
  formatAddress,
  parseAddress,
  parseBindAddress,
  type ResolvedAddress,
} from "../../../src/net/address.ts";
import { AddressList } from "../../../src/net/cidr-list.ts";
import { addressBytes } from "../../../src/net/ip-bytes.ts";
import { check, type FuzzTarget } from "../target.ts";

function parseOrReject(parse: (text: string) => Address, text: string): Address | undefined {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    check(error.message !== "", "an error says nothing");
    return undefined;
  }
}

/** Returns an address as it is listened on or connected to; undefined for a name, which must be looked up. */
function resolved(address: Address): ResolvedAddress | undefined {
  if (address.kind === "name") return undefined;
  if (address.kind === "unix") return { kind: "unix", path: address.path };
  const { host, port, family } = address;
  return { kind: "tcp", host, port, family };
}

function checkAddress(address: Address, text: string): void {
  check(address.text === text, "the text of an address changes", address);
  if (address.kind === "unix") {
    check(Buffer.byteLength(address.path) <= 107, "a path is too long for a socket");
  } else {
    check(address.host !== "", "an address has no host", address);
  }
  if (address.kind === "ip") {
    check(isIP(address.host) === address.family, "an address has another family", address);
    check(
      Number.isInteger(address.port) && address.port >= 0 && address.port <= 65_535,
      "a port is out of range",
    );
  }
}

/** Checks that an address is written as a text that gives the same address. */
function checkRoundTrip(address: Address, parse: (text: string) => Address): void {
  const plain = resolved(address);
  if (plain === undefined) return;
  const again = resolved(parse(formatAddress(plain)));
  check(JSON.stringify(again) === JSON.stringify(plain), "an address changes", { plain, again });
}

/** Checks `-s` and `-t`, without looking up names. */
async function checkOption(text: string, address: Address | undefined): Promise<void> {
  if (address?.kind === "name") return;
  try {
    const { addresses } = await resolveOption(text, "-s", parseAddress);
    const expected = address && resolved(address);
    check(
      JSON.stringify(addresses) === JSON.stringify([expected]),
      "an address is resolved to another",
      addresses,
    );
  } catch (error) {
    check(error instanceof ConfigError || error instanceof UsageError, "an error is not ours", String(error));
    check(address === undefined, "an address that was parsed is rejected", text);
  }
}

/** Returns the bits of an address, with IPv4 as an address that is mapped to IPv6. */
function bitsOf(ip: string): string {
  const bytes = addressBytes(ip);
  const all = isIPv4(ip) ? Buffer.concat([Buffer.from("00000000000000000000ffff", "hex"), bytes]) : bytes;
  return [...all].map((byte) => byte.toString(2).padStart(8, "0")).join("");
}

const OTHERS = [
  "192.0.2.1",
  "10.0.0.1",
  "0.0.0.0",
  "255.255.255.255",
  "::1",
  "2001:db8::1",
  "::ffff:192.0.2.1",
  "::",
];

function checkRange(text: string): void {
  let list: AddressList;
  try {
    list = new AddressList([text]);
  } catch (error) {
    check(error instanceof AddressError, "an error is not ours", String(error));
    return;
  }
  if (text === "unix") return;
  const [ip = "", length] = text.split("/");
  check(isIP(ip) !== 0, "a range has no address", text);
  check(list.includes(ip), "a range does not contain its own address", text);
  const offset = isIPv4(ip) ? 96 : 0;
  const prefix = bitsOf(ip).slice(0, length === undefined ? 128 : offset + Number(length));
  for (const other of OTHERS) {
    const isInside = bitsOf(other).startsWith(prefix);
    check(list.includes(other) === isInside, "a range contains the wrong addresses", {
      text,
      other,
      isInside,
    });
  }
}

export function makeTarget(): FuzzTarget {
  return {
    seeds: [
      "[127.0.0.1]:8025",
      "[::1]:25",
      "[2001:db8::1]:65535",
      "[::ffff:192.0.2.1]:1",
      "[127.0.0.1]",
      "[127.0.0.1]:+1",
      "localhost:http",
      "example.org:smtp",
      "::1:25",
      "/run/socket",
      `/${"x".repeat(107)}`,
      "192.0.2.0/24",
      "2001:db8::/32",
      "::ffff:192.0.2.0/120",
      "0.0.0.0/0",
      "::/0",
      "fe80::1%eth0",
      "[fe80::1%eth0]:25",
      "unix",
      "25",
      ":25",
    ].map((text) => Buffer.from(text)),
    words: [
      "[",
      "]:",
      ":",
      "::",
      "/",
      "%eth0",
      "127.0.0.1",
      "65535",
      "0",
      "+",
      " ",
      "\0",
      "ü",
      "/128",
      "/32",
    ],
    async run(input) {
      const text = input.toString();
      for (const parse of [parseAddress, parseBindAddress]) {
        const address = parseOrReject(parse, text);
        if (address === undefined) continue;
        // The port of an address to bind may be left out.
        if (parse === parseAddress || address.kind !== "name") checkAddress(address, text);
        checkRoundTrip(address, parse);
      }
      await checkOption(text, parseOrReject(parseAddress, text));
      checkRange(text);
    },
  };
}
