/**
 * The PROXY protocol header at the start of a connection. The input is what the connection sends.
 *
 * Parsing must not depend on how the bytes are split: a longer beginning gives the same result as the first one that
 * gives any. A header that is written from a parsed one must be parsed as the same connection.
 */
import { isIPv4 } from "node:net";
import { addressBytes } from "../../../src/net/ip-bytes.ts";
import {
  type ProxiedConnection,
  ProxyHeaderError,
  parseProxyHeader,
  proxyHeaderV1,
  proxyHeaderV2,
} from "../../../src/net/proxy-protocol.ts";
import { check, type FuzzTarget } from "../target.ts";

const IPV4 = {
  source: { address: "192.0.2.1", port: 4000 },
  destination: { address: "192.0.2.2", port: 25 },
};
const IPV6 = { source: { address: "2001:db8::1", port: 1 }, destination: { address: "::1", port: 65_535 } };
const MIXED = { source: { address: "::ffff:192.0.2.1", port: 1 }, destination: { address: "::1", port: 0 } };

/** Maximum length of a header; no more bytes are ever needed. */
const MAX_HEADER = 2048;

/** Returns the result of parsing as text; undefined if more bytes are needed. */
function parse(bytes: Buffer): string | undefined {
  try {
    const header = parseProxyHeader(bytes);
    return header && JSON.stringify(header);
  } catch (error) {
    if (!(error instanceof ProxyHeaderError)) throw error;
    return `${error.problem}: ${error.message}`;
  }
}

/** Returns both ends as bytes and ports: IPv4 addresses as those that are mapped to IPv6. */
function normalize({ source, destination }: ProxiedConnection): string {
  const bytes = (address: string) => {
    const found = addressBytes(address).toString("hex");
    return isIPv4(address) ? `00000000000000000000ffff${found}` : found;
  };
  return [source, destination].map(({ address, port }) => `${bytes(address)} ${port}`).join(", ");
}

export function makeTarget(): FuzzTarget {
  return {
    seeds: [
      ...[IPV4, IPV6, MIXED, undefined].flatMap((connection) => [
        proxyHeaderV1(connection),
        proxyHeaderV2(connection),
        proxyHeaderV2(connection, "alice"),
      ]),
      Buffer.concat([proxyHeaderV2(IPV4), Buffer.from("data")]),
      Buffer.from("\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0", "latin1"),
      Buffer.from("PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"),
    ],
    words: [
      "PROXY ",
      "TCP4 ",
      "TCP6 ",
      "UNKNOWN",
      "\r\n",
      "192.0.2.1 ",
      "::1 ",
      "::ffff:",
      "65535",
      "65536",
      " 0",
    ],
    run(input) {
      const whole = parse(input);
      const size = Math.min(input.length, MAX_HEADER + 1);
      const ends = Array.from({ length: size }, (_, i) => i).filter((end) => end < 200 || end % 41 === 0);
      let first: string | undefined;
      for (const end of ends) {
        const result = parse(input.subarray(0, end));
        check(first === undefined || result === first, "a result changes", { end, first, result });
        first = result;
      }
      check(first === undefined || whole === first, "a result changes", { first, whole });
      check(whole !== undefined || input.length < MAX_HEADER, "a header does not end");
      if (!whole?.startsWith("{")) return;
      const { connection, length } = parseProxyHeader(input)!;
      check(length <= input.length, "a header is longer than the input");
      if (connection === undefined) return;
      for (const { port } of [connection.source, connection.destination])
        check(Number.isInteger(port) && port >= 0 && port <= 65_535, "a port is out of range", port);
      for (const written of [
        proxyHeaderV1(connection),
        proxyHeaderV2(connection),
        proxyHeaderV2(connection, "ü"),
      ]) {
        const again = parseProxyHeader(Buffer.concat([written, Buffer.from("data")]))!;
        check(again.length === written.length, "a written header has another length");
        check(again.connection !== undefined, "a written header has no connection", connection);
        const [before, after] = [normalize(connection), normalize(again.connection)];
        check(before === after, "a written header has another connection", { before, after });
      }
    },
  };
}
