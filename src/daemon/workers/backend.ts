/** Selects what serves the connections: this process or workers. */
import { availableParallelism } from "node:os";
import type { Registry } from "prom-client";
import type { ProcessSettings } from "../../config/process-settings.ts";
import { loadEngine } from "../../protocol/engine/select.ts";
import { ExponentPool } from "../../tunnel/exponent-pool.ts";
import { Limits, makeAdmission } from "../limits.ts";
import { connectionLog } from "../observe/connection-log.ts";
import { combineObservers } from "../observe/events.ts";
import { FailureLog } from "../observe/failure-log.ts";
import type { Log } from "../observe/log.ts";
import type { WorkerStatus } from "../observe/status-server.ts";
import { localTunnels, type TunnelFactory } from "../tunnel.ts";
import { warmUp } from "../warm-up.ts";

/** Serves the tunnels' connections, in this process or in workers. */
export interface Backend {
  readonly factory: TunnelFactory;
  /** True if workers accept from the sockets that this process binds. */
  readonly isShared: boolean;
  readonly registry?: () => Promise<Registry>;
  workers(): readonly WorkerStatus[];
  /** Starts the workers, or warms up this process. Call after dropping privileges. */
  start(): Promise<void>;
  /** Prepares for exit. Call before draining the tunnels. */
  stop(): void;
  /** Resolves when the workers have exited. Call after draining the tunnels. */
  exited(): Promise<void>;
  destroy(): void;
}

/** @param warmsUp - true to warm up each process before it accepts connections. */
export async function makeBackend(settings: ProcessSettings, log: Log, warmsUp: boolean): Promise<Backend> {
  const logConnections = settings.logLevel === "info";
  const collectMetrics = settings.metrics !== undefined;
  const metrics = collectMetrics ? await import("../observe/metrics.ts") : undefined;
  const count = settings.workers === "auto" ? availableParallelism() : settings.workers;
  if (count > 1) {
    const { WorkerPool } = await import("./pool.ts");
    const pool = new WorkerPool({ count, log, logConnections, collectMetrics, warmsUp });
    return {
      factory: pool,
      isShared: true,
      ...(metrics && { registry: async () => metrics.aggregateMetrics(await pool.metrics(), pool.status()) }),
      workers: () => pool.status(),
      start: async () => pool.start(),
      stop: () => pool.stop(),
      exited: () => pool.exited(),
      destroy: () => pool.destroy(),
    };
  }
  const local = metrics?.makeMetrics(metrics.makeRegistry());
  const limits = new Limits(log);
  const failures = new FailureLog(log);
  const engine = await loadEngine();
  return {
    factory: localTunnels({
      log,
      observer: combineObservers(
        failures,
        ...(logConnections ? [connectionLog(log)] : []),
        ...(local ? [local.observer] : []),
      ),
      admission: makeAdmission(log, 1),
      engine,
      exponents: new ExponentPool(),
      connectionLimit: (plan, key, limit) => limits.get(plan.name, key?.name, limit),
    }),
    isShared: false,
    ...(local && { registry: async () => local.registry }),
    workers: () => [],
    start: async () => {
      if (warmsUp) await warmUp(engine, (message) => log.warn(message));
    },
    stop: () => {},
    exited: async () => failures.flush(),
    destroy: () => {},
  };
}
