/** The HTTP server of `--metrics`: `/metrics`, `/healthz`, `/readyz` and the status page. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { BlockList, isIPv4 } from "node:net";
import type { Registry } from "prom-client";
import { SpipedError } from "../protocol/errors.ts";
import type { ResolvedAddress } from "../tunnel/address.ts";
import { bindSocketFile } from "../tunnel/socket-file.ts";
import { type Sample, type Samples, StatusPage } from "./status-page.ts";

/** How often the byte counts are taken for the sparklines, ms. */
const INTERVAL = 2000;

/** Connections at a time: a scraper, a few probes, and a person or two. */
const MAX_CONNECTIONS = 64;

/** What the server shows. */
export interface StatusSource {
  readonly version: string;
  /** The metrics of all processes that serve. */
  registry(): Promise<Registry>;
  /** `ready`, `draining` or `target unreachable`. */
  state(): Promise<string>;
}

/** `--metrics` names an address that others can reach. */
class ExposedError extends SpipedError {
  constructor(host: string) {
    super(
      "ERR_SPIPED_EXPOSED",
      `metrics are served on loopback addresses and UNIX sockets only, not on ${host}`,
    );
  }
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/**
 * Starts to listen.
 *
 * @returns a function that stops it.
 * @throws ExposedError, or the system's error.
 */
export async function serveStatus(address: ResolvedAddress, source: StatusSource): Promise<() => void> {
  if (address.kind === "tcp" && !LOOPBACK.check(address.host, isIPv4(address.host) ? "ipv4" : "ipv6")) {
    throw new ExposedError(address.host);
  }
  const page = new StatusPage(INTERVAL);
  const server = createServer((request, response) => {
    answer(request, response, page, source).catch((error: Error) => {
      response.writeHead(500, { "content-type": "text/plain" }).end(`${error.message}\n`);
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  if (address.kind === "unix") await bindSocketFile(address.path, {}, () => listen(server, address));
  else await listen(server, address);
  const timer = setInterval(() => {
    samplesOf(source).then(
      (samples) => page.record(samples),
      () => {}, // It is a sparkline's point, no more.
    );
  }, INTERVAL);
  timer.unref();
  server.unref();
  return () => {
    clearInterval(timer);
    server.close();
    server.closeAllConnections();
  };
}

function listen(server: Server, address: ResolvedAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const where =
      address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port };
    server.listen(where, () => {
      server.off("error", reject);
      // A connection that can't be accepted is its client's trouble.
      server.on("error", () => {});
      resolve();
    });
  });
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  page: StatusPage,
  source: StatusSource,
): Promise<void> {
  const send = (status: number, type: string, body: string) =>
    response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(body);
  const text = "text/plain; charset=utf-8";
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("allow", "GET, HEAD");
    send(405, text, "GET only\n");
    return;
  }
  switch (request.url?.replace(/\?.*/, "")) {
    case "/metrics":
      send(200, "text/plain; version=0.0.4; charset=utf-8", await (await source.registry()).metrics());
      return;
    case "/healthz":
      send(200, text, "ok\n");
      return;
    case "/readyz": {
      const state = await source.state();
      send(state === "ready" ? 200 : 503, text, `${state}\n`);
      return;
    }
    case "/":
      send(
        200,
        "text/html; charset=utf-8",
        page.render(await samplesOf(source), await source.state(), source.version),
      );
      return;
    default:
      send(404, text, "not found\n");
  }
}

async function samplesOf(source: StatusSource): Promise<Samples> {
  const registry = await source.registry();
  const metrics = await registry.getMetricsAsJSON();
  return new Map(metrics.map(({ name, values }) => [name, values as unknown as Sample[]]));
}
