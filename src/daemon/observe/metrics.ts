/** Prometheus metrics (`--metrics`): connections, failures, bytes, handshake times and Node's default metrics. */
import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { reasonKind } from "./end-reason.ts";
import type { ConnectionInfo, Observer } from "./events.ts";
import type { WorkerStatus } from "./status-server.ts";

/** Label value for a tunnel or key without a name. */
const DEFAULT = "default";

/** A registry of this process's metrics and the observer that updates it. */
export interface Metrics {
  readonly registry: Registry;
  readonly observer: Observer;
}

/** @param registry an empty registry, to which the metrics are added. */
export function makeMetrics(registry: Registry): Metrics {
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const active = new Set<ConnectionInfo>();

  new Gauge({
    name: "spiped_connections",
    help: "Connections at the moment, by state, key and the key's fingerprint",
    labelNames: ["tunnel", "state", "key", "fingerprint"],
    registers,
    collect() {
      this.reset();
      for (const connection of active) {
        this.inc({ ...labelsFor(connection), ...fingerprintOf(connection), state: connection.state });
      }
    },
  });
  const total = new Counter({
    name: "spiped_connections_total",
    help: "Connections accepted",
    labelNames: ["tunnel"],
    registers,
  });
  const byKey = new Counter({
    name: "spiped_key_connections_total",
    help: "Connections over which data could flow, by key and its fingerprint, where keys have names",
    labelNames: ["tunnel", "key", "fingerprint"],
    registers,
  });
  const failures = new Counter({
    name: "spiped_connection_failures_total",
    help: "Connections that ended before data could flow, by reason",
    labelNames: ["tunnel", "reason"],
    registers,
  });
  const handshakeFailures = new Counter({
    name: "spiped_handshake_failures_total",
    help: "Handshakes that failed, by reason",
    labelNames: ["tunnel", "reason"],
    registers,
  });
  const ended = new Counter({
    name: "spiped_connections_ended_total",
    help: "Connections that ended after data could flow, by reason",
    labelNames: ["tunnel", "reason"],
    registers,
  });
  /** Bytes already counted, for connections that are not closed. */
  const counted = new Map<ConnectionInfo, { sealed: number; opened: number }>();
  const bytes = new Counter({
    name: "spiped_bytes_total",
    help: "Bytes of data, by direction",
    labelNames: ["tunnel", "key", "direction"],
    registers,
    collect() {
      for (const connection of active) countBytes(connection);
    },
  });
  const countBytes = (connection: ConnectionInfo) => {
    const { bytesEncrypted: sealed, bytesDecrypted: opened } = connection.traffic;
    const before = counted.get(connection) ?? { sealed: 0, opened: 0 };
    const labels = labelsFor(connection);
    bytes.inc({ ...labels, direction: "encrypted" }, sealed - before.sealed);
    bytes.inc({ ...labels, direction: "decrypted" }, opened - before.opened);
    counted.set(connection, { sealed, opened });
  };
  const handshakes = new Histogram({
    name: "spiped_handshake_seconds",
    help: "Time from accept to the other side's proof that it holds the key",
    labelNames: ["tunnel"],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
    registers,
  });
  const lookupFailures = new Counter({
    name: "spiped_lookup_failures_total",
    help: "Look-ups of target names that failed",
    labelNames: ["tunnel"],
    registers,
  });

  return {
    registry,
    observer: {
      accepted(connection) {
        active.add(connection);
        total.inc({ tunnel: connection.tunnel ?? DEFAULT });
      },
      opened(connection) {
        const { handshakeTime, tunnel = DEFAULT } = connection;
        if (handshakeTime !== undefined) handshakes.observe({ tunnel }, handshakeTime / 1000);
        if (connection.keyName !== undefined)
          byKey.inc({ ...labelsFor(connection), ...fingerprintOf(connection) });
      },
      closed(connection, reason) {
        countBytes(connection);
        active.delete(connection);
        counted.delete(connection);
        const tunnel = connection.tunnel ?? DEFAULT;
        const labels = { tunnel, reason: reasonKind(reason) };
        if (connection.openedAt !== undefined) ended.inc(labels);
        else failures.inc(labels);
        if (reason.startsWith("handshake: ")) handshakeFailures.inc(labels);
      },
      resolveFailed: (tunnel) => lookupFailures.inc({ tunnel: tunnel ?? DEFAULT }),
    },
  };

  function labelsFor({ tunnel, keyName }: ConnectionInfo) {
    return { tunnel: tunnel ?? DEFAULT, key: keyName ?? DEFAULT };
  }
}

/** Returns the label that distinguishes a client's keys, if keys have fingerprints. */
function fingerprintOf({ keyFingerprint }: ConnectionInfo): { fingerprint?: string } {
  return keyFingerprint === undefined ? {} : { fingerprint: keyFingerprint };
}

/** The metrics of one process, as sent to the primary. */
export type ProcessMetrics = Awaited<ReturnType<Registry["getMetricsAsJSON"]>>;

export function makeRegistry(): Registry {
  return new Registry();
}

/**
 * Returns one registry for all workers. Metrics are summed, except some of Node's: event loop lag, for example, is
 * averaged.
 *
 * @param metrics the last known metrics of each worker.
 * @param workers the status of all workers.
 */
export function aggregateMetrics(
  metrics: readonly ProcessMetrics[],
  workers: readonly WorkerStatus[],
): Registry {
  const registry: Registry = AggregatorRegistry.aggregate([...metrics] as unknown as object[]);
  const up = new Gauge({
    name: "spiped_worker_up",
    help: "1 if a worker process responds, 0 if it does not and its other metrics are those of its last answer",
    labelNames: ["pid"],
    registers: [registry],
  });
  for (const { pid, responding } of workers) up.set({ pid }, responding ? 1 : 0);
  return registry;
}
