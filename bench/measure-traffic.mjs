/** Measurements with the load of load.mjs: transfers, echoes and connections. Each takes a kind of pair. */
import { availableParallelism } from "node:os";
import { load, startLoad } from "./load-process.mjs";
import { withPair } from "./pairs.mjs";
import { besideSpinners, processorTime, untilIdle } from "./processes.mjs";
import { settings } from "./settings.mjs";
import { median } from "./statistics.mjs";

const CORES = availableParallelism();
const megabytes = (size, seconds) => size / 1e6 / seconds;

/** Runs `work` with a fresh pair, the service and the client. */
async function withLoad(kind, work, extra) {
  const { service, client, target } = await load();
  return withPair(kind, target, (pair) => work({ pair, service, client }), extra);
}

const warmUpEchoes = (client, port) =>
  client.call("echo", { port, seconds: settings.warmUpSeconds, atLeast: settings.warmUpRequests });

/** Runs `work` beside one busy process per core, if `busy`. */
const beside = (busy, work) => (busy ? besideSpinners(CORES, work) : work());

/**
 * Bulk transfer over a warm pair: MB/s, and s of CPU time per GB at each daemon and at the load.
 *
 * @param operation - `up` or `down`.
 */
export const bulk = (operation, { streams = 1, busy = false, extra } = {}) =>
  function measure(kind) {
    return withLoad(
      kind,
      async ({ pair: { port, encrypting, decrypting }, service, client }) => {
        // With as many streams, so that each worker warms up.
        await client.call(operation, { port, size: settings.warmUpSize / streams, streams });
        return beside(busy, async () => {
          const { size } = settings;
          const pids = [encrypting, decrypting, service.pid, client.pid];
          const before = pids.map((pid) => processorTime(pid).total);
          const seconds = await client.call(operation, { port, size: size / streams, streams });
          const used = pids.map((pid, i) => (processorTime(pid).total - before[i]) / (size / 1e9));
          return {
            value: megabytes(size, seconds),
            encrypting: used[0],
            decrypting: used[1],
            daemons: used[0] + used[1],
            load: used[2] + used[3],
          };
        });
      },
      extra,
    );
  };

/** The first transfer through a fresh pair, MB/s. */
export function coldBulk(kind) {
  const size = 1 << 26;
  return withLoad(kind, async ({ pair, client }) => {
    await untilIdle([pair.encrypting, pair.decrypting]);
    return { value: megabytes(size, await client.call("up", { port: pair.port, size })) };
  });
}

/** Echoes over one connection of a warm pair: quantiles, us. */
export const echo = ({ busy = false } = {}) =>
  function measure(kind) {
    return withLoad(kind, async ({ pair: { port }, client }) => {
      await warmUpEchoes(client, port);
      return beside(busy, () => client.call("echo", { port, seconds: settings.seconds }));
    });
  };

/** Echoes while another connection of a warm pair is saturated: quantiles, us. */
export function echoBesideBulk(kind) {
  return withLoad(kind, async ({ pair: { port }, client }) => {
    const filler = startLoad();
    try {
      await filler.call("up", { port, size: settings.warmUpSize });
      await warmUpEchoes(client, port);
      // More than can be sent in the time of the echoes; the end of `filler` ends it.
      filler.call("up", { port, size: 2 ** 40 }).catch(() => {});
      return await client.call("echo", { port, seconds: settings.seconds });
    } finally {
      await filler.end();
    }
  });
}

/** Connections to a warm pair, 16 at a time, per second, and ms of CPU time per connection at each daemon. */
export function connections(kind) {
  return withLoad(kind, async ({ pair: { port, encrypting, decrypting }, client }) => {
    const { warmUpSeconds: seconds, warmUpConnections: atLeast } = settings;
    await client.call("connections", { port, seconds, atLeast });
    const pids = [encrypting, decrypting];
    const before = pids.map((pid) => processorTime(pid).total);
    const made = await client.call("connections", { port, seconds: settings.seconds });
    const used = pids.map((pid, i) => ((processorTime(pid).total - before[i]) / made.count) * 1000);
    return { value: made.count / made.seconds, encrypting: used[0], decrypting: used[1] };
  });
}

/** The first echo through a fresh pair, ms, and the next nine, us. */
export async function firstConnection(kind) {
  const samples = [];
  for (let i = 0; i < settings.samples; i += 1) {
    samples.push(
      await withLoad(kind, async ({ pair, client }) => {
        await untilIdle([pair.encrypting, pair.decrypting]);
        return client.call("first", { port: pair.port });
      }),
    );
  }
  return {
    value: median(samples.map(({ first }) => first)),
    following: median(samples.map(({ following }) => following)),
  };
}

/** 2000 connections at once to a fresh pair: how many are served per second, and how many are not. */
export function burst(kind) {
  const count = 2000;
  return withLoad(kind, async ({ pair, client }) => {
    await untilIdle([pair.encrypting, pair.decrypting]);
    const timeout = settings.burstTimeout;
    const { served, seconds } = await client.call("burst", { port: pair.port, count, timeout });
    if (served === 0) throw new Error("no connection was served");
    return { value: served / seconds, failed: count - served };
  });
}
