/** What serves the connections: this process, or workers. */
import { availableParallelism } from "node:os";
import type { Registry } from "prom-client";
import type { ProcessSettings } from "../../config/process-settings.ts";
import { Limits, makeAdmission } from "../limits.ts";
import { connectionLog } from "../observe/connection-log.ts";
import { allObservers } from "../observe/events.ts";
import { FailureLog } from "../observe/failure-log.ts";
import type { Log } from "../observe/log.ts";
import type { WorkerStatus } from "../observe/status-server.ts";
import { localTunnels, type TunnelFactory } from "../tunnel.ts";

/** One of the two. */
export interface Backend {
  readonly factory: TunnelFactory;
  /** Whether other processes accept from the sockets that this one binds. */
  readonly isShared: boolean;
  readonly registry?: () => Promise<Registry>;
  workers(): readonly WorkerStatus[];
  /** To be called when privileges are dropped. */
  start(): void;
  /** To be called before the tunnels are drained. */
  stop(): void;
  /** Resolves when no other process is left, after the tunnels were drained. */
  exited(): Promise<void>;
  destroy(): void;
}

export async function makeBackend(settings: ProcessSettings, log: Log): Promise<Backend> {
  const logConnections = settings.logLevel === "info";
  const collectMetrics = settings.metrics !== undefined;
  const metrics = collectMetrics ? await import("../observe/metrics.ts") : undefined;
  const count = settings.workers === "auto" ? availableParallelism() : settings.workers;
  if (count > 1) {
    const { WorkerPool } = await import("./pool.ts");
    const pool = new WorkerPool({ count, log, logConnections, collectMetrics });
    return {
      factory: pool,
      isShared: true,
      ...(metrics && { registry: async () => metrics.joinMetrics(await pool.metrics(), pool.status()) }),
      workers: () => pool.status(),
      start: () => pool.start(),
      stop: () => pool.stop(),
      exited: () => pool.exited(),
      destroy: () => pool.destroy(),
    };
  }
  const own = metrics?.makeMetrics(metrics.makeRegistry());
  const limits = new Limits(log);
  const failures = new FailureLog(log);
  return {
    factory: localTunnels({
      log,
      observer: allObservers(
        failures,
        ...(logConnections ? [connectionLog(log)] : []),
        ...(own ? [own.observer] : []),
      ),
      admission: makeAdmission(log, 1),
      slots: (plan, key, limit) => limits.get(plan.name, key?.name, limit),
    }),
    isShared: false,
    ...(own && { registry: async () => own.registry }),
    workers: () => [],
    start: () => {},
    stop: () => {},
    exited: async () => failures.flush(),
    destroy: () => {},
  };
}
