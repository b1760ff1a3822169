/** The HTTP server of `--metrics`: `/metrics`, `/healthz`, `/readyz` and the status page. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Registry } from "prom-client";
import type { ResolvedAddress } from "../../net/address.ts";
import { bindSocketFile } from "../../net/socket-file.ts";
import { type BearerToken, isHostAllowed } from "./status-access.ts";
import { StatusConnections } from "./status-connections.ts";
import { type Sample, type Samples, StatusPage } from "./status-page.ts";

/** Interval between samples of the byte counts for the sparklines, in ms. */
const SAMPLE_INTERVAL_MS = 2000;

/** Minimum interval between collections, in ms, so that a flood of requests does not slow down the tunnels. */
const MIN_COLLECT_INTERVAL_MS = 200;

/** Name in URLs for a tunnel given on the command line, which has no name. */
const UNNAMED = "default";

/** The readiness of a tunnel. */
export interface TunnelReadiness {
  /** Name; undefined for a tunnel given on the command line. */
  readonly tunnel: string | undefined;
  /** `ready`, or the reason that it is not, such as `target unreachable` or `draining`. */
  readonly state: string;
}

/** The status of a worker process. */
export interface WorkerStatus {
  readonly pid: number;
  /** False if it has sent no message recently, not even the response to a ping. */
  readonly responding: boolean;
}

/**
 * Source of the data that the server shows. Health checks typically time out after a second, so each method must take
 * less, even if workers do not respond.
 */
export interface StatusSource {
  readonly version: string;
  /** Resolves with the metrics of all processes; the last known ones of workers that do not respond. */
  registry(): Promise<Registry>;
  /** Resolves with the state of each tunnel. */
  readiness(): Promise<readonly TunnelReadiness[]>;
  /** Returns the worker processes; an empty list if this process serves the connections. */
  workers(): readonly WorkerStatus[];
}

/** Access rules of the status server. */
export interface StatusAccess {
  /** Names allowed in the Host header, in addition to `localhost` and IP addresses. */
  readonly hosts: readonly string[];
  /** Returns the token required for metrics, status page and health details, if any; called for each request. */
  readonly token: () => BearerToken | undefined;
}

/** A response to a request. */
interface Reply {
  readonly status: number;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * Starts the server.
 *
 * @returns a function that stops the server.
 * @throws the system's error.
 */
export async function serveStatus(
  address: ResolvedAddress,
  source: StatusSource,
  access: StatusAccess,
): Promise<() => void> {
  const page = new StatusPage(SAMPLE_INTERVAL_MS);
  const collected = {
    metrics: throttle(MIN_COLLECT_INTERVAL_MS, async () => (await source.registry()).metrics()),
    samples: throttle(MIN_COLLECT_INTERVAL_MS, () => samplesOf(source)),
  };
  const connections = new StatusConnections();
  const respond = (request: IncomingMessage, response: ServerResponse) => {
    if (!connections.startResponse(request.socket)) return;
    void replyTo(request, { address, source, access, page, collected })
      .catch((error: unknown): Reply => ({ status: 500, body: `${(error as Error).message}\n` }))
      .then(({ status, body, headers }) => {
        const all = {
          "content-type": "text/plain; charset=utf-8",
          "content-length": Buffer.byteLength(body),
          "cache-control": "no-store",
          // One request per connection, so that there are no idle connections and no queued requests.
          connection: "close",
          ...headers,
        };
        response.writeHead(status, all).end(body);
      });
  };
  const server = createServer(respond);
  // Node itself would respond to requests with an Expect header, and keep their connections.
  server.on("checkContinue", respond);
  server.on("checkExpectation", respond);
  server.on("connection", (socket) => connections.add(socket));
  if (address.kind === "unix") await bindSocketFile(address.path, {}, () => listen(server, address));
  else await listen(server, address);
  const timer = setInterval(() => {
    collected.samples().then(
      (samples) => page.record(samples),
      () => {}, // Only a point of a sparkline is lost.
    );
  }, SAMPLE_INTERVAL_MS);
  timer.unref();
  server.unref();
  return () => {
    clearInterval(timer);
    server.close();
    connections.destroy();
  };
}

function listen(server: Server, address: ResolvedAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const endpoint =
      address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port };
    // A flood would fill a short backlog, and clients retry a connect only after a second. `exclusive` makes this
    // process listen itself even if its environment makes Node treat it as a cluster worker.
    server.listen({ ...endpoint, backlog: 65_535, exclusive: true }, () => {
      server.off("error", reject);
      // Failing to accept a connection affects only its client.
      server.on("error", () => {});
      resolve();
    });
  });
}

/** The server's state and settings that replies depend on. */
interface Context {
  readonly address: ResolvedAddress;
  readonly source: StatusSource;
  readonly access: StatusAccess;
  readonly page: StatusPage;
  readonly collected: {
    readonly metrics: () => Promise<string>;
    readonly samples: () => Promise<Samples>;
  };
}

async function replyTo(
  { method, headers, url = "" }: IncomingMessage,
  { address, source, access, page, collected }: Context,
): Promise<Reply> {
  if (address.kind === "tcp" && !isHostAllowed(headers.host, access.hosts)) {
    return {
      status: 421,
      body: "unknown name in the Host header: use an IP address or localhost, or allow the name with --metrics-host\n",
    };
  }
  if (method !== "GET" && method !== "HEAD") {
    return { status: 405, body: "only GET and HEAD are supported\n", headers: { allow: "GET, HEAD" } };
  }
  const token = access.token();
  const authorized = token === undefined || token.matches(headers.authorization);
  const path = url.replace(/\?.*/, "");
  const unresponsive = unresponsiveWorkers(source);

  if (path === "/healthz") {
    // One hung worker must not cause a restart of the daemon, which would close the connections of the others.
    const healthy = !allWorkersUnresponsive(source);
    const lines = healthy ? ["ok", ...unresponsive] : unresponsive;
    return health(healthy, authorized ? lines : [healthy ? "ok" : "not ok"]);
  }
  const [, tunnel] = /^\/readyz(?:\/([^/]+))?$/.exec(path) ?? [];
  if (path === "/readyz" || tunnel !== undefined) {
    const all = await source.readiness();
    const selected = tunnel === undefined ? all : all.filter((each) => nameOf(each) === decode(tunnel));
    if (tunnel !== undefined && selected.length === 0) return { status: 404, body: "no such tunnel\n" };
    const problems = problemsOf(selected);
    const ready = problems.length === 0 && !allWorkersUnresponsive(source);
    const lines = ready ? ["ready", ...unresponsive] : [...problems, ...unresponsive];
    return health(ready, authorized ? lines : [ready ? "ready" : "not ready"]);
  }
  if (path !== "/" && path !== "/metrics") return { status: 404, body: "not found\n" };
  if (!authorized) {
    return {
      status: 401,
      body: "a bearer token is required\n",
      headers: { "www-authenticate": 'Bearer realm="spiped"' },
    };
  }
  if (path === "/metrics") {
    return {
      status: 200,
      body: await collected.metrics(),
      headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
    };
  }
  const [readiness, samples] = await Promise.all([source.readiness(), collected.samples()]);
  const problems = problemsOf(readiness);
  const state = [...(problems.length === 0 ? ["ready"] : problems), ...unresponsive].join(", ");
  return {
    status: 200,
    body: page.render(samples, state, source.version),
    headers: { "content-type": "text/html; charset=utf-8" },
  };
}

function health(good: boolean, lines: readonly string[]): Reply {
  return { status: good ? 200 : 503, body: lines.map((line) => `${line}\n`).join("") };
}

/** Returns a line for each tunnel that is not ready, with its name if it has one. */
function problemsOf(readiness: readonly TunnelReadiness[]): string[] {
  return readiness
    .filter(({ state }) => state !== "ready")
    .map(({ tunnel, state }) => (tunnel === undefined ? state : `${tunnel}: ${state}`));
}

/** Returns a line for each worker that does not respond. */
function unresponsiveWorkers(source: StatusSource): string[] {
  return source
    .workers()
    .filter(({ responding }) => !responding)
    .map(({ pid }) => `worker ${pid} does not respond`);
}

/** Returns true if there are workers and none of them responds. */
function allWorkersUnresponsive(source: StatusSource): boolean {
  const workers = source.workers();
  return workers.length > 0 && workers.every(({ responding }) => !responding);
}

function nameOf({ tunnel = UNNAMED }: TunnelReadiness): string {
  return tunnel;
}

/** Returns a path segment as text; undefined if it is not correctly encoded. */
function decode(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

/** Returns a function that calls `make` at most once per `interval` (ms) and otherwise returns the last result. */
function throttle<Result>(interval: number, make: () => Promise<Result>): () => Promise<Result> {
  let last: Promise<Result> | undefined;
  let next = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (last === undefined || now >= next) {
      last = make();
      next = now + interval;
    }
    return last;
  };
}

async function samplesOf(source: StatusSource): Promise<Samples> {
  const registry = await source.registry();
  const metrics = await registry.getMetricsAsJSON();
  return new Map(metrics.map(({ name, values }) => [name, values as unknown as Sample[]]));
}
