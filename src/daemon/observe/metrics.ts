/** Prometheus metrics (`--metrics`): connections, failures, bytes, handshake times and Node's default metrics. */
import { AggregatorRegistry, Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { CLOSE_REASONS } from "../../tunnel/close-reason.ts";
import type { ConnectionEvent } from "../../tunnel/connection-event.ts";
import type { Traffic } from "../../tunnel/pipe.ts";
import type { Observer } from "./events.ts";
import type { WorkerStatus } from "./status-server.ts";

/** Label value for a tunnel or key without a name. */
const DEFAULT = "default";

/** States of a connection; `stranger` is a client that is not authenticated. */
type State = "stranger" | "waiting" | "connecting" | "open";

/** A connection that is not closed: what its metrics need, since an event takes more memory. */
interface ActiveConnection {
  readonly tunnel: string | undefined;
  keyName: string | undefined;
  keyFingerprint: string | undefined;
  state: State;
  readonly traffic: Readonly<Traffic>;
  /** Bytes already counted. */
  encrypted: number;
  decrypted: number;
}

/** A registry of this process's metrics and the observer that updates it. */
export interface Metrics {
  readonly registry: Registry;
  readonly observer: Observer;
}

/** @param registry - an empty registry, to which the metrics are added. */
export function makeMetrics(registry: Registry): Metrics {
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  /** By the ID of the connection. */
  const active = new Map<number, ActiveConnection>();

  new Gauge({
    name: "spiped_connections",
    help: "Current connections, by state, key and the key's fingerprint",
    labelNames: ["tunnel", "state", "key", "fingerprint"],
    registers,
    collect() {
      this.reset();
      for (const connection of active.values())
        this.inc({ ...labelsFor(connection), ...fingerprintOf(connection), state: connection.state });
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
    help: "Connections over which data could flow, by key and its fingerprint, for named keys",
    labelNames: ["tunnel", "key", "fingerprint"],
    registers,
  });
  const failures = new Counter({
    name: "spiped_connection_failures_total",
    help: "Connections that closed before data could flow, by reason",
    labelNames: ["tunnel", "reason"],
    registers,
  });
  const handshakeFailures = new Counter({
    name: "spiped_handshake_failures_total",
    help: "Failed handshakes, by reason",
    labelNames: ["tunnel", "reason"],
    registers,
  });
  const ended = new Counter({
    name: "spiped_connections_ended_total",
    help: "Connections that closed after data could flow, by reason",
    labelNames: ["tunnel", "reason"],
    registers,
  });
  const bytes = new Counter({
    name: "spiped_bytes_total",
    help: "Bytes of data, by direction",
    labelNames: ["tunnel", "key", "direction"],
    registers,
    collect() {
      for (const connection of active.values()) countBytes(connection);
    },
  });
  const countBytes = (connection: ActiveConnection) => {
    const { traffic, encrypted, decrypted } = connection;
    const labels = labelsFor(connection);
    bytes.inc({ ...labels, direction: "encrypted" }, traffic.bytesEncrypted - encrypted);
    bytes.inc({ ...labels, direction: "decrypted" }, traffic.bytesDecrypted - decrypted);
    connection.encrypted = traffic.bytesEncrypted;
    connection.decrypted = traffic.bytesDecrypted;
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
    help: "Failed DNS lookups of target names",
    labelNames: ["tunnel"],
    registers,
  });

  return {
    registry,
    observer: {
      connection(event, traffic) {
        const tunnel = event.tunnel ?? DEFAULT;
        const connection = active.get(event.id) ?? add(event, traffic);
        connection.state = stateAfter(event);
        connection.keyName = event.keyName;
        connection.keyFingerprint = event.keyFingerprint;
        switch (event.type) {
          case "accepted":
            total.inc({ tunnel });
            break;
          case "opened":
            if (event.handshakeTime !== undefined) handshakes.observe({ tunnel }, event.handshakeTime / 1000);
            if (event.keyName !== undefined) byKey.inc({ ...labelsFor(event), ...fingerprintOf(event) });
            break;
          case "closed": {
            countBytes(connection);
            active.delete(event.id);
            const labels = { tunnel, reason: event.label };
            if (event.opened) ended.inc(labels);
            else failures.inc(labels);
            if (CLOSE_REASONS[event.reason].isHandshake) handshakeFailures.inc(labels);
            break;
          }
          default:
            // Other events change only the connection's state.
            break;
        }
      },
      lookupFailed: (tunnel) => lookupFailures.inc({ tunnel: tunnel ?? DEFAULT }),
    },
  };

  function add(event: ConnectionEvent, traffic: Readonly<Traffic>): ActiveConnection {
    const { id, tunnel, keyName, keyFingerprint } = event;
    const state = stateAfter(event);
    const connection = { tunnel, keyName, keyFingerprint, state, traffic, encrypted: 0, decrypted: 0 };
    active.set(id, connection);
    return connection;
  }

  function labelsFor({ tunnel, keyName }: ConnectionEvent | ActiveConnection) {
    return { tunnel: tunnel ?? DEFAULT, key: keyName ?? DEFAULT };
  }
}

/** Returns the state of a connection after an event. */
function stateAfter({ type, mode }: ConnectionEvent): State {
  switch (type) {
    case "accepted":
      return mode === "decrypt" ? "stranger" : "waiting";
    case "authenticated":
      return mode === "decrypt" ? "waiting" : "connecting";
    case "waiting":
      return "waiting";
    case "connecting":
    case "connected":
      return "connecting";
    case "opened":
    case "closed":
      return "open";
  }
}

/** Returns the label that distinguishes a client's keys, if keys have fingerprints. */
function fingerprintOf({ keyFingerprint }: ConnectionEvent | ActiveConnection): { fingerprint?: string } {
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
 * @param metrics - the last known metrics of each worker.
 * @param workers - the status of all workers.
 */
export function aggregateMetrics(
  metrics: readonly ProcessMetrics[],
  workers: readonly WorkerStatus[],
): Registry {
  const registry: Registry = AggregatorRegistry.aggregate([...metrics]);
  const up = new Gauge({
    name: "spiped_worker_up",
    help: "1 if a worker process responds, 0 if it does not and its other metrics are those of its last response",
    labelNames: ["pid"],
    registers: [registry],
  });
  for (const { pid, responding } of workers) up.set({ pid }, responding ? 1 : 0);
  return registry;
}
