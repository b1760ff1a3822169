/** The HTTP server of `--metrics`: `/metrics`, `/healthz`, `/readyz` and the status page. */
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { Registry } from "prom-client";
import { SpipedError } from "../../errors.ts";
import type { ResolvedAddress } from "../../net/address.ts";
import { bindSocketFile } from "../../net/socket-file.ts";
import { type BearerToken, isExposed, isHostAllowed } from "./status-access.ts";
import { StatusConnections } from "./status-connections.ts";
import { type Sample, type Samples, StatusPage } from "./status-page.ts";

/** How often the byte counts are taken for the sparklines, ms. */
const INTERVAL = 2000;

/** Metrics are collected at most this often, ms: a flood of requests must not take the time of the tunnels. */
const MIN_COLLECT_INTERVAL_MS = 200;

/** Stands for the tunnel of a command line, which has no name. */
const UNNAMED = "default";

/** Whether a tunnel can serve clients. */
export interface TunnelReadiness {
  /** Its name; undefined for the tunnel of a command line. */
  readonly tunnel: string | undefined;
  /** `ready`, or why it is not, such as `target unreachable` or `draining`. */
  readonly state: string;
}

/** A process that serves connections. */
export interface WorkerStatus {
  readonly pid: number;
  /** False if it has been asked something lately and has not answered. */
  readonly responding: boolean;
}

/** What the server shows. Probes wait a second for an answer: each method takes less, whatever the workers do. */
export interface StatusSource {
  readonly version: string;
  /** The metrics of all processes that respond. */
  registry(): Promise<Registry>;
  /** The state of each tunnel. */
  readiness(): Promise<readonly TunnelReadiness[]>;
  /** The worker processes; none if this process serves the connections. */
  workers(): readonly WorkerStatus[];
}

/** Who may read the status. */
export interface StatusAccess {
  /** Allow an address that other machines can reach. */
  readonly exposed: boolean;
  /** Names in the Host header that are answered, besides `localhost` and IP addresses. */
  readonly hosts: readonly string[];
  /** The token that metrics, status page and details of health require; undefined for none. Called for each request. */
  readonly token: () => BearerToken | undefined;
}

/** `--metrics` names an address that others can reach. */
class ExposedError extends SpipedError {
  constructor() {
    super(
      "ERR_SPIPED_EXPOSED",
      "neither a loopback address nor a UNIX socket, and --metrics-public is not given",
    );
  }
}

/** An answer to a request. */
interface Reply {
  readonly status: number;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * Starts to listen.
 *
 * @returns a function that stops it.
 * @throws ExposedError, or the system's error.
 */
export async function serveStatus(
  address: ResolvedAddress,
  source: StatusSource,
  access: StatusAccess,
): Promise<() => void> {
  if (isExposed(address) && !access.exposed) throw new ExposedError();
  const page = new StatusPage(INTERVAL);
  const collected = {
    metrics: atMostEvery(MIN_COLLECT_INTERVAL_MS, async () => (await source.registry()).metrics()),
    samples: atMostEvery(MIN_COLLECT_INTERVAL_MS, () => samplesOf(source)),
  };
  const connections = new StatusConnections();
  const server = createServer((request, response) => {
    if (!connections.ask(request.socket)) return;
    void replyTo(request, { address, source, access, page, collected })
      .catch((error: Error): Reply => ({ status: 500, body: `${error.message}\n` }))
      .then(({ status, body, headers }) => {
        const all = {
          "content-type": "text/plain; charset=utf-8",
          "content-length": Buffer.byteLength(body),
          "cache-control": "no-store",
          // One request for each connection: there are none that idle, and no requests that queue.
          connection: "close",
          ...headers,
        };
        response.writeHead(status, all).end(body);
      });
  });
  server.on("connection", (socket) => connections.add(socket));
  if (address.kind === "unix") await bindSocketFile(address.path, {}, () => listen(server, address));
  else await listen(server, address);
  const timer = setInterval(() => {
    collected.samples().then(
      (samples) => page.record(samples),
      () => {}, // It is a sparkline's point, no more.
    );
  }, INTERVAL);
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
    const where =
      address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port };
    // A flood fills a short backlog, and a connect that finds it full is tried again only after a second. Exclusive: this
    // process listens for itself, even if the environment makes Node take it for a worker of a cluster.
    server.listen({ ...where, backlog: 65_535, exclusive: true }, () => {
      server.off("error", reject);
      // A connection that can't be accepted is its client's trouble.
      server.on("error", () => {});
      resolve();
    });
  });
}

/** What a reply is made of. */
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
    return { status: 405, body: "GET only\n", headers: { allow: "GET, HEAD" } };
  }
  const token = access.token();
  const authorized = token === undefined || token.matches(headers.authorization);
  const path = url.replace(/\?.*/, "");
  const silent = silentWorkers(source);

  if (path === "/healthz") {
    // One worker of several that hangs is no reason to restart the daemon, which would end the connections of the others.
    const healthy = !isSilent(source);
    const lines = healthy ? ["ok", ...silent] : silent;
    return health(healthy, authorized ? lines : [healthy ? "ok" : "not ok"]);
  }
  const [, tunnel] = /^\/readyz(?:\/([^/]+))?$/.exec(path) ?? [];
  if (path === "/readyz" || tunnel !== undefined) {
    const all = await source.readiness();
    const asked = tunnel === undefined ? all : all.filter((one) => nameOf(one) === decode(tunnel));
    if (tunnel !== undefined && asked.length === 0) return { status: 404, body: "no such tunnel\n" };
    const problems = problemsOf(asked);
    const ready = problems.length === 0 && !isSilent(source);
    const lines = ready ? ["ready", ...silent] : [...problems, ...silent];
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
  const state = [...(problems.length === 0 ? ["ready"] : problems), ...silent].join(", ");
  return {
    status: 200,
    body: page.render(samples, state, source.version),
    headers: { "content-type": "text/html; charset=utf-8" },
  };
}

function health(good: boolean, lines: readonly string[]): Reply {
  return { status: good ? 200 : 503, body: lines.map((line) => `${line}\n`).join("") };
}

/** A line for each tunnel that is not ready, with its name if it has one. */
function problemsOf(readiness: readonly TunnelReadiness[]): string[] {
  return readiness
    .filter(({ state }) => state !== "ready")
    .map(({ tunnel, state }) => (tunnel === undefined ? state : `${tunnel}: ${state}`));
}

/** A line for each worker that does not respond. */
function silentWorkers(source: StatusSource): string[] {
  return source
    .workers()
    .filter(({ responding }) => !responding)
    .map(({ pid }) => `worker ${pid} does not respond`);
}

/** True if there are workers and none of them responds. */
function isSilent(source: StatusSource): boolean {
  const workers = source.workers();
  return workers.length > 0 && workers.every(({ responding }) => !responding);
}

function nameOf({ tunnel = UNNAMED }: TunnelReadiness): string {
  return tunnel;
}

/** A path's segment as text; undefined if it is badly encoded. */
function decode(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

/** Calls `make` at most once in `interval` ms; calls in between return its last result. */
function atMostEvery<Result>(interval: number, make: () => Promise<Result>): () => Promise<Result> {
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
