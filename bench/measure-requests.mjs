/** Measurements of many small messages, with load generators written in C. Each takes a kind of pair. */
import { withPair } from "./pairs.mjs";
import { delay, end, hasExited, launch, processorTime, runProgram, untilIdle } from "./processes.mjs";
import { portOf, readCounters } from "./services.mjs";
import { settings } from "./settings.mjs";

/**
 * Longest time until all clients of a load generator are connected, ms. Some never are: Tarsnap's daemon has a listen
 * backlog of 10, and a client that the kernel drops retries after 1, 3 and 7 seconds.
 */
const CONNECT_TIMEOUT = 8000;

/** Longest warm-up, ms. */
const WARM_UP_TIMEOUT = 20_000;

/**
 * Runs a load generator against a service and measures a part of its run: after its clients have connected and the
 * programs have warmed up.
 *
 * @returns the number of requests in that part, its s, the CPU time of `pids` in it, and how many clients are connected.
 */
async function measureUnderLoad({ service, command, clients, warmUp = settings.warmUpRequests, pids }) {
  const child = launch(command, { stdio: "ignore" });
  try {
    const deadline = performance.now() + CONNECT_TIMEOUT;
    while ((await readCounters(service)).open < clients && performance.now() < deadline) await delay(20);
    const warmAt = (await readCounters(service)).requests + warmUp;
    await delay(settings.warmUpSeconds * 1000);
    const warmUpEnd = performance.now() + WARM_UP_TIMEOUT;
    while ((await readCounters(service)).requests < warmAt && performance.now() < warmUpEnd) await delay(50);
    const before = pids.map(processorTime);
    const [first, start] = [await readCounters(service), performance.now()];
    await delay(settings.seconds * 1000);
    const [last, stop] = [await readCounters(service), performance.now()];
    const after = pids.map(processorTime);
    if (hasExited(child)) throw new Error(`${command[0]} has lost a connection`);
    const used = (part) => after.reduce((sum, time, i) => sum + time[part] - before[i][part], 0);
    const requests = last.requests - first.requests;
    if (requests === 0) throw new Error(`${command[0]} makes no progress`);
    return {
      requests,
      open: last.open,
      seconds: (stop - start) / 1000,
      user: used("user"),
      system: used("system"),
    };
  } finally {
    await end(child);
  }
}

/** redis-benchmark that runs until it is ended; each GET is a message of its own. */
const redisBenchmark = (port, clients, extra = []) =>
  ["redis-benchmark", "-p", String(port), "-t", "get", "-P", "1", "-n", "1000000000", "-q"].concat(
    ["-c", String(clients)],
    extra,
  );

/** Requests per second over a warm pair, and us of CPU time per message and daemon. */
const requests = (service, clients, command) =>
  async function measure(kind) {
    return withPair(kind, await portOf(service), async ({ port, encrypting, decrypting }) => {
      const pids = [encrypting, decrypting];
      const measured = await measureUnderLoad({ service, command: command(port), clients, pids });
      // Each request is a message in either direction, in each daemon.
      const messages = measured.requests * 2 * pids.length;
      return {
        value: measured.requests / measured.seconds,
        open: measured.open,
        user: (measured.user / messages) * 1e6,
        system: (measured.system / messages) * 1e6,
      };
    });
  };

/** redis-benchmark GET, without pipelining. */
export const redis = (clients) => requests("redis", clients, (port) => redisBenchmark(port, clients));

/**
 * The first requests of redis-benchmark GET through a fresh pair: requests per second, as it reports them, and us of
 * user time per message and daemon, which includes the handshakes.
 */
export const coldRedis = (clients, count) =>
  async function measure(kind) {
    return withPair(kind, await portOf("redis"), async ({ port, encrypting, decrypting }) => {
      const pids = [encrypting, decrypting];
      await untilIdle(pids);
      const used = () => pids.reduce((sum, pid) => sum + processorTime(pid).user, 0);
      const before = used();
      const amount = ["-c", String(clients), "-n", String(count)];
      const output = await runProgram(
        ["redis-benchmark", "-p", String(port), "-t", "get", "-P", "1"].concat(amount, "--csv"),
      );
      const value = Number(/^"GET","([\d.]+)"/m.exec(output)[1]);
      return { value, user: ((used() - before) / (count * 2 * pids.length)) * 1e6 };
    });
  };

/** wrk with a small file. */
export const wrk = (clients) =>
  requests("nginx", clients, (port) =>
    ["wrk", "-t", "1", "-c", String(clients), "-d", "1h"].concat(`http://127.0.0.1:${port}/file`),
  );

/** pgbench, SELECT only: transactions per second over a warm pair, as it reports them. */
export const pgbench = (clients) =>
  async function measure(kind) {
    return withPair(kind, await portOf("postgresql"), async ({ port }) => {
      const run = (...amount) => {
        const where = ["-h", "127.0.0.1", "-p", String(port), "-U", "bench"];
        return runProgram(["pgbench", "-S", "-n", "-c", String(clients), ...amount, ...where, "postgres"]);
      };
      await run("-t", String(Math.ceil(settings.warmUpRequests / clients)));
      // Its clients take a part of the time to connect, which its figure leaves out.
      const output = await run("-T", String(settings.seconds * 2));
      const [, rate] = /^tps = ([\d.]+)/m.exec(output) ?? [];
      if (rate === undefined) throw new Error("pgbench makes no progress");
      return { value: Number(rate) };
    });
  };

/**
 * A daemon with workers where it is the limit: Tarsnap's encrypting daemon with `-f`, which computes no exponentiation,
 * and redis-benchmark cost less than it. The kind is the number of workers.
 *
 * @param reconnect - whether each request takes a connection of its own.
 * @returns requests per second, and ms of the daemon's CPU time per request.
 */
export const withWorkers = ({ clients, reconnect }) =>
  async function measure(workers) {
    return withPair(
      "c-ours",
      await portOf("redis"),
      async ({ port, decrypting }) => {
        const command = redisBenchmark(port, clients, reconnect ? ["-k", "0"] : []);
        const measured = await measureUnderLoad({
          service: "redis",
          command,
          // Clients that reconnect are never all connected.
          ...(reconnect ? { clients: 1, warmUp: settings.warmUpConnections } : { clients }),
          pids: [decrypting],
        });
        return {
          value: measured.requests / measured.seconds,
          processor: ((measured.user + measured.system) / measured.requests) * 1e3,
        };
      },
      { encrypting: ["-f"], decrypting: ["--workers", workers] },
    );
  };
