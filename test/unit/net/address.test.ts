/** The syntax of socket addresses. */
import { describe, expect, it } from "vitest";
import {
  AddressError,
  EmptyAddressError,
  formatAddress,
  parseAddress,
  parseBindAddress,
} from "../../../src/net/address.ts";

const LONG = `/${"x".repeat(106)}`;

describe("an address", () => {
  it.each([
    ["/run/socket", { kind: "unix", path: "/run/socket" }],
    [LONG, { kind: "unix", path: LONG }],
    ["[192.0.2.1]:8025", { kind: "ip", host: "192.0.2.1", port: 8025, family: 4 }],
    ["[192.0.2.1]:+1", { kind: "ip", host: "192.0.2.1", port: 1, family: 4 }],
    ["[2001:db8::1]:65535", { kind: "ip", host: "2001:db8::1", port: 65_535, family: 6 }],
    ["example.org:smtp", { kind: "name", host: "example.org", service: "smtp" }],
    ["2001:db8::1:25", { kind: "name", host: "2001:db8::1", service: "25" }],
  ])("%s is %j", (text, parsed) => {
    expect(parseAddress(text)).toEqual({ ...parsed, text });
  });

  it.each([
    ["", "Empty socket address", EmptyAddressError],
    [":25", 'No host in ":25"', EmptyAddressError],
    ["25", "Address must contain port number: 25", AddressError],
    [`${LONG}x`, `socket path too long: ${LONG}x`, AddressError],
    [`/${"ö".repeat(54)}`, `socket path too long: /${"ö".repeat(54)}`, AddressError],
    ["[192.0.2.1]:0", "Invalid port number: 0", AddressError],
    ["[192.0.2.1]:65536", "Invalid port number: 65536", AddressError],
    ["[192.0.2.1]:smtp", "Invalid port number: smtp", AddressError],
    ["[192.0.2.1:25", "Invalid [IP address]: [192.0.2.1", AddressError],
    ["[192.0.2]:25", "Error parsing IP address: 192.0.2", AddressError],
    ["[fe80::1%eth0]:25", "Error parsing IP address: fe80::1%eth0", AddressError],
    ["[example.org]:25", "Error parsing IP address: example.org", AddressError],
  ])("%j is rejected: %s", (text, message, type) => {
    expect(() => parseAddress(text)).toThrow(new type(message));
    expect(() => parseAddress(text)).toThrow(type);
  });
});

describe("a local address", () => {
  it.each([
    ["[192.0.2.1]", { kind: "ip", host: "192.0.2.1", port: 0, family: 4 }],
    ["[192.0.2.1]:0", { kind: "ip", host: "192.0.2.1", port: 0, family: 4 }],
    ["[2001:db8::1]:25", { kind: "ip", host: "2001:db8::1", port: 25, family: 6 }],
    ["localhost:25", { kind: "name", host: "localhost", service: "25" }],
    ["/run/socket", { kind: "unix", path: "/run/socket" }],
  ])("%s is %j", (text, parsed) => {
    expect(parseBindAddress(text)).toEqual({ ...parsed, text });
  });

  it("may be a name without a port", () => {
    expect(parseBindAddress("localhost")).toMatchObject({ kind: "name", host: "localhost", service: "0" });
  });

  it.each(["", "[192.0.2.1]x", "[192.0.2.1]:65536", "[192.0.2.999]", "[192.0.2.1"])(
    "%j is rejected",
    (text) => {
      expect(() => parseBindAddress(text)).toThrow(AddressError);
    },
  );
});

it("a resolved address is written as it is parsed", () => {
  for (const text of ["[192.0.2.1]:25", "[2001:db8::1]:25", "/run/socket"]) {
    const parsed = parseAddress(text);
    const resolved = parsed.kind === "ip" ? { ...parsed, kind: "tcp" as const } : parsed;
    expect(formatAddress(resolved as Parameters<typeof formatAddress>[0])).toBe(text);
  }
});
