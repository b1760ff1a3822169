/** The responses of the status address. */
import { Counter } from "prom-client";
import { describe, expect, it } from "vitest";
import { aggregateMetrics, makeMetrics, makeRegistry } from "../../../../src/daemon/observe/metrics.ts";
import { BearerToken } from "../../../../src/daemon/observe/status-access.ts";
import {
  type StatusAccess,
  type StatusSource,
  serveStatus,
  type WorkerStatus,
} from "../../../../src/daemon/observe/status-server.ts";
import { ConnectionRecord } from "../../../../src/tunnel/connection-event.ts";
import { readExposition } from "../../../support/exposition.ts";
import { ask, askRaw } from "../../../support/http.ts";
import { cleanUp, connectTo, freeAddress } from "../../../support/programs.ts";

const TOKEN = "0123456789abcdef0123456789abcdef";

/** Starts a status server in this process. */
async function startServer(source: Partial<StatusSource>, access: Partial<StatusAccess> = {}) {
  const address = await freeAddress();
  const { host, port } = address.connect as { host: string; port: number };
  const stop = await serveStatus(
    { kind: "tcp", host, port, family: 4 },
    {
      version: "1",
      registry: async () => makeRegistry(),
      readiness: async () => [{ tunnel: undefined, state: "ready" }],
      workers: () => [],
      ...source,
    },
    { hosts: [], token: () => undefined, ...access },
  );
  cleanUp(stop);
  return address;
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

describe("the status address", () => {
  it("responds while other clients do not read their responses", async () => {
    const registry = makeRegistry();
    const counter = new Counter({ name: "large", help: "large", labelNames: ["n"], registers: [registry] });
    for (let n = 0; n < 200; n += 1) counter.inc({ n: `${n}${"x".repeat(10_000)}` });
    const status = await startServer({ registry: async () => registry });
    for (let i = 0; i < 100; i += 1) {
      const socket = await connectTo(status);
      socket.write("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    expect(await ask(status, "/healthz")).toMatchObject({ status: 200 });
    expect((await ask(status, "/metrics")).body.length).toBeGreaterThan(2_000_000);
  });

  it.each([
    [200, "localhost"],
    [200, "LOCALHOST.:9464"],
    [200, "127.0.0.1:9464"],
    [200, "10.1.2.3"],
    [200, "[::1]:9464"],
    [200, "[2001:db8::1]"],
    [200, ""],
    [200, "metrics.example.org"],
    [200, "Metrics.Example.org:80"],
    [200, "spiped"],
    [421, "evil.example"],
    [421, "evil.example:9464"],
    [421, "localhost.evil.example"],
    [421, "127.0.0.1.evil.example"],
    [421, "metrics.example.org.evil.example"],
    [421, "localhost@evil.example"],
    [421, "localhost:1:evil.example"],
    [421, "[evil.example]"],
    [421, "[::1].evil.example"],
  ])("responds with %i to a request for the host %s", async (expected, host) => {
    const status = await startServer({}, { hosts: ["metrics.example.org", "spiped"] });
    for (const path of ["/", "/metrics", "/healthz", "/readyz"]) {
      const answer = await askRaw(status, `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
      expect(answer).toContain(`HTTP/1.1 ${expected} `);
    }
  });
});

describe("a request with an Expect header", () => {
  it.each(["100-continue", "something else"])(
    "gets one response, which closes the connection: %s",
    async (expected) => {
      const status = await startServer({});
      const head = ["GET /healthz HTTP/1.1", "Host: localhost", `Expect: ${expected}`].join("\r\n");
      const answer = await askRaw(status, `${head}\r\n\r\n`);
      expect(answer).toMatch(/^HTTP\/1\.1 200 /);
      expect(answer.match(/^connection: .*$/gim)).toEqual(["connection: close"]);
    },
  );

  it("is rejected for a foreign host", async () => {
    const status = await startServer({});
    const head = ["GET / HTTP/1.1", "Host: evil.example", "Expect: x"].join("\r\n");
    expect(await askRaw(status, `${head}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 421 /);
  });
});

describe("/readyz", () => {
  it("returns only ready or not ready to a client without the token", async () => {
    const token = new BearerToken(Buffer.from(TOKEN));
    const readiness = async () => [
      { tunnel: "mail", state: "ready" },
      { tunnel: "redis", state: "starting: cannot look up cache.example.org" },
    ];
    const workers = () => [{ pid: 123, responding: false }];
    const status = await startServer({ readiness, workers }, { token: () => token });
    expect(await ask(status, "/readyz")).toMatchObject({ status: 503, body: "not ready\n" });
    expect(await ask(status, "/readyz", bearer(TOKEN))).toMatchObject({
      status: 503,
      body: "redis: starting: cannot look up cache.example.org\nworker 123 does not respond\n",
    });
    expect(await ask(status, "/healthz")).toMatchObject({ status: 503, body: "not ok\n" });
  });
});

describe("a worker that does not respond", () => {
  it.each([
    [
      "one of two",
      [true, false],
      200,
      "ok\nworker 102 does not respond\n",
      "ready\nworker 102 does not respond\n",
    ],
    [
      "all",
      [false, false],
      503,
      "worker 101 does not respond\nworker 102 does not respond\n",
      "worker 101 does not respond\nworker 102 does not respond\n",
    ],
  ])("is reported: %s", async (_which, responding, expected, health, ready) => {
    const workers: WorkerStatus[] = responding.map((responding, i) => ({ pid: 101 + i, responding }));
    const { registry, observer } = makeMetrics(makeRegistry());
    const client = {
      number: 1,
      tunnel: 'with "quotes"',
      mode: "decrypt",
      peer: "unix",
      source: "unix",
    } as const;
    new ConnectionRecord(client, observer).report("accepted");
    const status = await startServer({
      workers: () => workers,
      registry: async () => {
        const answered = workers.filter(({ responding }) => responding);
        return aggregateMetrics(await Promise.all(answered.map(() => registry.getMetricsAsJSON())), workers);
      },
    });
    expect(await ask(status, "/healthz")).toMatchObject({ status: expected, body: health });
    expect(await ask(status, "/readyz")).toMatchObject({ status: expected, body: ready });
    const series = readExposition((await ask(status, "/metrics")).body);
    for (const { pid, responding } of workers)
      expect(series.get(`spiped_worker_up{pid="${pid}"}`)).toBe(responding ? 1 : 0);
    expect((await ask(status, "/")).body).toContain("worker 102 does not respond");
  });
});
