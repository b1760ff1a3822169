import { describe, expect, it } from "vitest";
import { parseProxyHeader, proxyHeaderV1, proxyHeaderV2 } from "../../../src/net/proxy-protocol.ts";

const v4 = { source: { address: "192.0.2.7", port: 51234 }, destination: { address: "127.0.0.1", port: 25 } };
const v6 = { source: { address: "2001:db8::7", port: 51234 }, destination: { address: "::1", port: 25 } };

describe("a version 1 header", () => {
  it("is one line of text", () => {
    expect(proxyHeaderV1(v4).toString()).toBe("PROXY TCP4 192.0.2.7 127.0.0.1 51234 25\r\n");
    expect(proxyHeaderV1(v6).toString()).toBe("PROXY TCP6 2001:db8::7 ::1 51234 25\r\n");
    expect(proxyHeaderV1(undefined).toString()).toBe("PROXY UNKNOWN\r\n");
  });

  it("has an IPv4-mapped IPv6 address as IPv4", () => {
    const mapped = { ...v4, source: { address: "::ffff:192.0.2.7", port: 1 } };
    expect(proxyHeaderV1(mapped).toString()).toBe("PROXY TCP4 192.0.2.7 127.0.0.1 1 25\r\n");
  });

  it.each([
    "GET / HTTP/1.1\r\n",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
    "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
    "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
    "PROXY TCP4 ::1 ::1 1 2\r\n",
    "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
    "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
    `PROXY TCP4 ${"1".repeat(200)}`,
  ])("is rejected if it is %j", (text) => {
    expect(() => parseProxyHeader(Buffer.from(text))).toThrow(
      expect.objectContaining({ code: "ERR_SPIPED_PROXY_HEADER" }),
    );
  });
});

describe("a version 2 header", () => {
  it("has the bytes that the specification defines", () => {
    expect(proxyHeaderV2(v4).toString("hex")).toBe(
      "0d0a0d0a000d0a515549540a2111000cc00002077f000001c8220019",
    );
    expect(proxyHeaderV2(undefined, "alice").toString("hex")).toBe(
      "0d0a0d0a000d0a515549540a21000008e00005616c696365",
    );
  });

  it("is rejected with an unknown version or an invalid length", () => {
    const broken = (change: (header: Buffer) => void) => {
      const header = Buffer.concat([proxyHeaderV2(v4), Buffer.alloc(70000)]);
      change(header);
      return () => parseProxyHeader(header);
    };
    expect(broken((h) => h.writeUInt8(0x11, 12))).toThrow("version");
    expect(broken((h) => h.writeUInt16BE(4, 14))).toThrow("too short");
    expect(broken((h) => h.writeUInt16BE(65535, 14))).toThrow("too long");
  });

  it("has no client address with the command LOCAL", () => {
    const header = proxyHeaderV2(v4);
    header[12] = 0x20;
    expect(parseProxyHeader(header)).toEqual({ length: header.length });
  });
});

describe.each([
  ["1 over IPv4", proxyHeaderV1(v4), v4],
  ["1 over IPv6", proxyHeaderV1(v6), v6],
  ["1 of an unknown client", proxyHeaderV1(undefined), undefined],
  ["2 over IPv4", proxyHeaderV2(v4), v4],
  ["2 over IPv6", proxyHeaderV2(v6), v6],
  ["2 with the name of a key", proxyHeaderV2(v6, "mail"), v6],
])("a header of version %s", (_name, header, connection) => {
  it("is parsed once it is complete, and bytes after it are not consumed", () => {
    const stream = Buffer.concat([header, Buffer.from("data")]);
    for (let length = 0; length < header.length; length += 1) {
      expect(parseProxyHeader(stream.subarray(0, length))).toBeUndefined();
    }
    const expected =
      connection === undefined ? { length: header.length } : { length: header.length, connection };
    expect(parseProxyHeader(stream)).toEqual(expected);
  });
});
