/**
 * The status server's HTTP input. The first byte of the input says whether a token is required (1), whether the server
 * listens on a UNIX socket (2), and how the request is cut (the rest); the request follows.
 *
 * A connection gets no reply or one complete reply, in a short time, and never the reply of an error of ours. Without the
 * token it gets no metrics, and over TCP with a foreign name as host neither. Other clients are still served.
 */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Counter, Registry } from "prom-client";
import { BearerToken } from "../../../src/daemon/observe/status-access.ts";
import { type StatusSource, serveStatus } from "../../../src/daemon/observe/status-server.ts";
import type { ResolvedAddress } from "../../../src/net/address.ts";
import { check, type FuzzTarget } from "../target.ts";

const TOKEN = "0123456789abcdef";

/** A name that only metrics contain. */
const SECRET = "spiped_fuzzed_total";

/** Time in which each connection must be closed, in ms. */
const MAX_TIME_MS = 20_000;

/** Number of inputs between two checks that other clients are served. */
const CHECK_INTERVAL = 50;

function makeSource(): StatusSource {
  const registry = new Registry();
  new Counter({ name: SECRET, help: "a counter", registers: [registry] }).inc();
  return {
    version: "1",
    registry: async () => registry,
    readiness: async () => [
      { tunnel: "mail", state: "ready" },
      { tunnel: "a b", state: "draining" },
    ],
    workers: () => [{ pid: 1, responding: true }],
  };
}

/** Sends a request in pieces and ends, and returns everything received until the server closes the connection. */
async function exchange(address: ResolvedAddress, request: Buffer, size: number): Promise<string> {
  const { kind, ...to } = address;
  const socket: Socket = connect(to as { path: string });
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", () => {});
  const closed = new Promise<boolean>((resolve) => socket.once("close", () => resolve(true)));
  await Promise.race([once(socket, "connect").catch(() => {}), closed]);
  socket.setNoDelay(true);
  for (let at = 0; at < request.length; at += size) {
    socket.write(request.subarray(at, at + size));
    if (size < request.length) await new Promise((done) => setImmediate(done));
  }
  socket.end();
  let timer: NodeJS.Timeout | undefined;
  const tooLate = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), MAX_TIME_MS);
  });
  const isClosed = await Promise.race([closed, tooLate]);
  clearTimeout(timer);
  check(isClosed, "a connection stays open");
  return Buffer.concat(chunks).toString("latin1");
}

/** Statuses of replies: ours, and those of Node's parser. */
const STATUSES = [200, 400, 401, 404, 405, 408, 413, 417, 421, 431, 503];

/** Checks a complete reply. Returns its body. */
function checkReply(reply: string, request: string): string {
  const headEnd = reply.indexOf("\r\n\r\n");
  check(headEnd > 0, "a reply has no head", reply);
  const [statusLine = "", ...headers] = reply.slice(0, headEnd).split("\r\n");
  const [, status] = /^HTTP\/1\.1 (\d{3}) /.exec(statusLine) ?? [];
  check(STATUSES.includes(Number(status)), "a reply has another status", statusLine);
  const body = reply.slice(headEnd + 4);
  check(
    headers.some((header) => /^connection: close$/i.test(header)),
    "a connection is kept",
    headers,
  );
  const [, length] = /^content-length: (\d+)$/im.exec(headers.join("\n")) ?? [];
  // Replies of Node's parser have no body.
  if (/^transfer-encoding: chunked$/im.test(headers.join("\n"))) {
    check(body === "0\r\n\r\n", "a reply of Node's parser has a body", reply);
    return "";
  }
  // A reply to HEAD has the length of what it leaves out.
  const isHead = request.startsWith("HEAD");
  const expected = isHead || length === undefined ? 0 : Number(length);
  check(body.length === expected, "a reply has another length", { statusLine, expected, found: body.length });
  return body;
}

export async function makeTarget(): Promise<FuzzTarget> {
  const directory = mkdtempSync(join(tmpdir(), "spiped-fuzz-"));
  const token = new BearerToken(Buffer.from(TOKEN));
  const stops: (() => void)[] = [];
  const servers: { address: ResolvedAddress; hasToken: boolean }[] = [];
  for (let i = 0; i < 4; i += 1) {
    const hasToken = (i & 1) !== 0;
    const address: ResolvedAddress =
      (i & 2) !== 0
        ? { kind: "unix", path: join(directory, `socket${i}`) }
        : { kind: "tcp", host: "127.0.0.1", port: 28_000 + (process.pid % 1000) * 2 + i, family: 4 };
    const access = { hosts: ["metrics.example.org"], token: () => (hasToken ? token : undefined) };
    stops.push(await serveStatus(address, makeSource(), access));
    servers.push({ address, hasToken });
  }
  let count = 0;

  async function run(input: Buffer): Promise<void> {
    const [options = 0] = input;
    const request = input.subarray(1);
    const { address, hasToken } = servers[options & 3]!;
    const size = [request.length, 1, 7, 64][(options >> 2) & 3]! || 1;
    const text = request.toString("latin1");
    const reply = await exchange(
      address,
      request,
      size > 1 ? size : Math.max(1, Math.ceil(request.length / 200)),
    );
    if (reply !== "") {
      const body = checkReply(reply, text);
      const showsMetrics = body.includes(SECRET);
      check(!showsMetrics || !hasToken || text.includes(TOKEN), "metrics are shown without the token");
      const [, host] = /^host:[ \t]*(\S+)/im.exec(text) ?? [];
      const isForeign = host !== undefined && /^[a-z]+\.evil(:\d+)?$/i.test(host);
      const isOnlyHost = (text.match(/host/gi) ?? []).length === 1;
      check(
        !showsMetrics || address.kind === "unix" || !isForeign || !isOnlyHost,
        "metrics for a foreign name",
      );
    }
    count += 1;
    if (count % CHECK_INTERVAL !== 0) return;
    for (const server of servers) {
      const health = await exchange(
        server.address,
        Buffer.from("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        1000,
      );
      check(health.startsWith("HTTP/1.1 200 "), "another client is not served", health);
    }
  }

  const get = (path: string, ...headers: string[]) =>
    `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers.map((header) => `${header}\r\n`).join("")}\r\n`;
  const requests = [
    get("/"),
    get("/metrics"),
    get("/metrics", `Authorization: Bearer ${TOKEN}`),
    get("/readyz"),
    get("/readyz/mail"),
    get("/readyz/a%20b?x"),
    get("/readyz/%ff"),
    get("/healthz").repeat(2),
    "GET /metrics HTTP/1.1\r\nHost: www.evil\r\n\r\n",
    "HEAD /metrics HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /metrics HTTP/1.1\r\nHost: metrics.example.org\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: ",
  ];
  return {
    seeds: requests.map((request, i) => Buffer.concat([Buffer.from([i]), Buffer.from(request)])),
    words: [
      "\r\n",
      "\r\n\r\n",
      "Host: www.evil\r\n",
      "Host: localhost\r\n",
      `Authorization: Bearer ${TOKEN}\r\n`,
      "Content-Length: 10\r\n",
      "Transfer-Encoding: chunked\r\n",
      "Connection: keep-alive\r\n",
      "Upgrade: h2c\r\n",
      "Expect: 100-continue\r\n",
      "Expect: x\r\n",
      "/metrics",
      "/readyz/",
      "%00",
      "%",
      "HTTP/1.0",
      "HEAD ",
      "OPTIONS ",
      "\0",
    ],
    run,
    close() {
      for (const stop of stops) stop();
      rmSync(directory, { recursive: true });
    },
  };
}
