/**
 * The PROXY protocol, versions 1 and 2, as defined by HAProxy: a header at the start of a connection with the addresses
 * of the original connection. Sent to the target (`--send-proxy`), read from a load balancer (`--accept-proxy`).
 */
import { isIPv4, isIPv6 } from "node:net";
import { SpipedError } from "../errors.ts";
import { addressBytes } from "./ip-bytes.ts";

/** One end of a TCP connection. */
interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** The original connection, as described by a header. */
export interface ProxiedConnection {
  /** The client's endpoint. */
  readonly source: Endpoint;
  /** The endpoint that the client connected to. */
  readonly destination: Endpoint;
}

/** TLV type of the client's key name: the first application-specific type. */
const TLV_KEY_NAME = 0xe0;

const V2_SIGNATURE = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const V2_HEADER_BYTES = 16;
const V2_VERSION = 0x20;
const V2_COMMAND_PROXY = 0x01;
const V2_COMMAND_LOCAL = 0x00;
/** Address family and transport: TCP over IPv4, TCP over IPv6, unspecified. */
const V2_TCP4 = 0x11;
const V2_TCP6 = 0x21;
const V2_UNSPECIFIED = 0x00;
/** Maximum length of a version 1 header, including CRLF. */
const MAX_V1_BYTES = 107;
/** Maximum length of an accepted version 2 header: far more than the addresses and a few TLVs need. */
const MAX_V2_BYTES = 2048;

/**
 * Returns a version 1 header.
 *
 * @param connection - undefined if the client has no TCP address.
 */
export function proxyHeaderV1(connection: ProxiedConnection | undefined): Buffer {
  const same = connection === undefined ? undefined : sameFamily(connection);
  if (same === undefined) return Buffer.from("PROXY UNKNOWN\r\n", "latin1");
  const { source, destination, family } = same;
  const fields = [`TCP${family}`, source.address, destination.address, source.port, destination.port];
  return Buffer.from(`PROXY ${fields.join(" ")}\r\n`, "latin1");
}

/**
 * Returns a version 2 header.
 *
 * @param connection - undefined if the client has no TCP address.
 * @param keyName - name of the client's key, sent as a TLV.
 */
export function proxyHeaderV2(connection: ProxiedConnection | undefined, keyName?: string): Buffer {
  const same = connection === undefined ? undefined : sameFamily(connection);
  let family = V2_UNSPECIFIED;
  const body: Buffer[] = [];
  if (same !== undefined) {
    family = same.family === 4 ? V2_TCP4 : V2_TCP6;
    const ports = Buffer.alloc(4);
    ports.writeUInt16BE(same.source.port, 0);
    ports.writeUInt16BE(same.destination.port, 2);
    body.push(addressBytes(same.source.address), addressBytes(same.destination.address), ports);
  }
  if (keyName !== undefined) {
    const value = Buffer.from(keyName, "utf8");
    const head = Buffer.alloc(3);
    head[0] = TLV_KEY_NAME;
    head.writeUInt16BE(value.length, 1);
    body.push(head, value);
  }
  const rest = Buffer.concat(body);
  const head = Buffer.alloc(V2_HEADER_BYTES);
  V2_SIGNATURE.copy(head);
  head[12] = V2_VERSION | V2_COMMAND_PROXY;
  head[13] = family;
  head.writeUInt16BE(rest.length, 14);
  return Buffer.concat([head, rest]);
}

/** A parsed header. */
export interface ProxyHeader {
  /** Length of the header in bytes; the connection's data follows. */
  readonly length: number;
  /** Undefined for the load balancer's own connection (a health check) and if the original is not TCP. */
  readonly connection?: ProxiedConnection;
}

/** Why there is no valid header. */
export type ProxyHeaderProblem = "missing" | "malformed" | "timeout" | "peer closed";

/** Missing or invalid header. */
export class ProxyHeaderError extends SpipedError {
  readonly problem: ProxyHeaderProblem;

  constructor(problem: ProxyHeaderProblem, message: string) {
    super("ERR_SPIPED_PROXY_HEADER", message);
    this.problem = problem;
  }
}

/**
 * Parses a header of either version at the start of a connection.
 *
 * @param received - all bytes received so far.
 * @returns undefined if more bytes are needed.
 * @throws ProxyHeaderError if the bytes are not a valid header.
 */
export function parseProxyHeader(received: Buffer): ProxyHeader | undefined {
  const { length } = received;
  const signature = Math.min(length, V2_SIGNATURE.length);
  if (received.subarray(0, signature).equals(V2_SIGNATURE.subarray(0, signature))) {
    return length < V2_HEADER_BYTES ? undefined : parseV2(received);
  }
  return parseV1(received);
}

function parseV1(received: Buffer): ProxyHeader | undefined {
  const text = received.toString("latin1", 0, MAX_V1_BYTES);
  const prefix = "PROXY ";
  if (!prefix.startsWith(text.slice(0, prefix.length)))
    throw new ProxyHeaderError("missing", "no PROXY protocol header");
  const end = text.indexOf("\r\n");
  if (end < 0) {
    if (received.length >= MAX_V1_BYTES) throw new ProxyHeaderError("malformed", "PROXY line too long");
    return undefined;
  }
  const length = end + 2;
  const [, protocol, from, to, fromPort, toPort, ...excess] = text.slice(0, end).split(" ");
  if (protocol === "UNKNOWN") return { length };
  const valid = protocol === "TCP4" ? isIPv4 : protocol === "TCP6" ? isIPv6 : () => false;
  if (!valid(from ?? "") || !valid(to ?? "") || excess.length > 0)
    throw new ProxyHeaderError("malformed", "malformed PROXY line");
  const source = { address: from!, port: parsePort(fromPort) };
  return { length, connection: { source, destination: { address: to!, port: parsePort(toPort) } } };
}

function parsePort(text: string | undefined): number {
  if (text === undefined || !/^(0|[1-9]\d{0,4})$/.test(text) || Number(text) > 65_535) {
    throw new ProxyHeaderError("malformed", "malformed port in PROXY line");
  }
  return Number(text);
}

function parseV2(received: Buffer): ProxyHeader | undefined {
  const command = received[12]!;
  const family = received[13]!;
  const body = received.readUInt16BE(14);
  const length = V2_HEADER_BYTES + body;
  if (command !== (V2_VERSION | V2_COMMAND_PROXY) && command !== (V2_VERSION | V2_COMMAND_LOCAL)) {
    throw new ProxyHeaderError("malformed", "unknown version or command in PROXY header");
  }
  if (length > MAX_V2_BYTES) throw new ProxyHeaderError("malformed", "PROXY header too long");
  if (received.length < length) return undefined;
  const size = family === V2_TCP4 ? 4 : family === V2_TCP6 ? 16 : 0;
  if (command === (V2_VERSION | V2_COMMAND_LOCAL) || size === 0) return { length };
  if (body < 2 * size + 4)
    throw new ProxyHeaderError("malformed", "PROXY header too short for its addresses");
  const end = (index: 0 | 1): Endpoint => {
    const start = V2_HEADER_BYTES + index * size;
    const bytes = received.subarray(start, start + size);
    return {
      address: addressText(bytes),
      port: received.readUInt16BE(V2_HEADER_BYTES + 2 * size + 2 * index),
    };
  };
  return { length, connection: { source: end(0), destination: end(1) } };
}

/** Returns both endpoints in one address family, with an IPv4 address mapped to IPv6 if the other is IPv6. */
function sameFamily({ source, destination }: ProxiedConnection) {
  const endpoints = { source: unmapped(source), destination: unmapped(destination) };
  if (isIPv4(endpoints.source.address) && isIPv4(endpoints.destination.address))
    return { ...endpoints, family: 4 as const };
  const mapped = (end: Endpoint) =>
    isIPv4(end.address) ? { ...end, address: `::ffff:${end.address}` } : end;
  return { source: mapped(endpoints.source), destination: mapped(endpoints.destination), family: 6 as const };
}

/** Converts an IPv4-mapped address (`::ffff:1.2.3.4`), as a dual-stack socket reports it, to IPv4. */
function unmapped(end: Endpoint): Endpoint {
  const address = end.address.replace(/^::ffff:(?=\d+\.)/i, "");
  return { ...end, address };
}

function addressText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join(".");
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16));
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1);
}
