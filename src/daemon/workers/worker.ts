/**
 * A worker process: accepts connections from listening sockets bound by the primary, and serves them. It exits when the
 * primary exits or closes the IPC channel.
 */
import type { Registry } from "prom-client";
import { destroySecrets, type TunnelPlan } from "../../config/plan.ts";
import { BoundSocket, type SocketHandle } from "../../net/bound-socket.ts";
import { startTimeout } from "../../net/timers.ts";
import { loadEngine } from "../../protocol/engine/select.ts";
import { ExponentPool } from "../../tunnel/exponent-pool.ts";
import { limitId, makeAdmission } from "../limits.ts";
import { connectionLog } from "../observe/connection-log.ts";
import { combineObservers, type Observer } from "../observe/events.ts";
import { FailureLog } from "../observe/failure-log.ts";
import type { Log } from "../observe/log.ts";
import { LocalTunnel } from "../tunnel.ts";
import type { TunnelContext } from "../tunnel-options.ts";
import { warmUp } from "../warm-up.ts";
import {
  CANNOT_SHARE,
  type ParentMessage,
  type SocketError,
  WORKER_VARIABLE,
  type WorkerMessage,
} from "./messages.ts";
import { RemoteLimits } from "./remote-limits.ts";
import { deserializePlan } from "./serialized-plan.ts";

/** Maximum time for resetting the connections before the worker exits, in ms. */
const MAX_RESET_MS = 500;

/** Returns true in a process started by a WorkerPool. Call once, at startup. */
export function isWorker(): boolean {
  const marked = process.env[WORKER_VARIABLE] !== undefined && process.channel !== undefined;
  delete process.env[WORKER_VARIABLE];
  return marked;
}

/**
 * Runs the worker until the IPC channel is closed.
 *
 * @returns the exit status.
 */
export function runWorker(): Promise<number> {
  // Signals reach the whole process group; only the primary acts on them.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => {});

  const send = (message: WorkerMessage) => void process.send?.(message, () => {});
  const log: Log = {
    warn: (message, fields) => send({ type: "log", level: "warn", message, ...(fields && { fields }) }),
    info: (message, fields) => send({ type: "log", level: "info", message, ...(fields && { fields }) }),
  };
  const failures = new FailureLog(log);
  const limits = new RemoteLimits(send);
  const tunnels = new Map<number, LocalTunnel>();
  let context: TunnelContext;
  let registry: Registry | undefined;

  const setUp = async (message: Extract<ParentMessage, { type: "setup" }>) => {
    const engine = await loadEngine();
    if (message.warmsUp) await warmUp(engine, (text) => log.warn(text));
    const observers: Observer[] = [failures];
    if (message.logConnections) observers.push(connectionLog(log));
    if (message.collectMetrics) {
      const { makeMetrics, makeRegistry } = await import("../observe/metrics.ts");
      const metrics = makeMetrics(makeRegistry());
      registry = metrics.registry;
      observers.push(metrics.observer);
    }
    context = {
      log,
      observer: combineObservers(...observers),
      admission: makeAdmission(log, message.workers),
      engine,
      exponents: new ExponentPool(),
      connectionLimit: (plan, key) => limits.get(limitId(plan.name, key?.name)),
    };
    send({ type: "ready" });
  };

  const answer = async (
    message: Extract<ParentMessage, { request: number }>,
    handle: SocketHandle | undefined,
  ): Promise<unknown> => {
    switch (message.type) {
      case "listen":
        return listen(message.tunnel, deserializePlan(message.plan), handle);
      case "drain":
        await tunnels.get(message.tunnel)?.drain();
        tunnels.delete(message.tunnel);
        failures.flush();
        return true;
      case "reachable":
        return tunnels.get(message.tunnel)?.isReachable();
      case "connections":
        return tunnels.get(message.tunnel)?.countConnections();
      case "metrics":
        return registry?.getMetricsAsJSON();
    }
  };

  const listen = async (
    id: number,
    plan: TunnelPlan,
    handle: SocketHandle | undefined,
  ): Promise<true | SocketError> => {
    // Without a handle, `server.listen()` would listen on any port.
    if (handle === undefined) return { code: "", message: CANNOT_SHARE };
    const tunnel = new LocalTunnel(context, BoundSocket.receive(handle));
    tunnels.set(id, tunnel);
    try {
      await tunnel.serve(plan);
      destroySecrets([plan]);
      return true;
    } catch (error) {
      const { code = "", message } = error as NodeJS.ErrnoException;
      return { code, message };
    }
  };

  return new Promise((resolve) => {
    // Messages after "setup" wait for it to complete. Handlers start in message order but do not wait for each other.
    let ready = Promise.resolve();
    process.on("message", (message: ParentMessage, handle: unknown) => {
      if (message.type === "ping") {
        send({ type: "pong" });
        return;
      }
      if (message.type === "setup") {
        ready = setUp(message);
        return;
      }
      void ready.then(async () => {
        if (message.type === "change") {
          const plan = deserializePlan(message.plan);
          await tunnels.get(message.tunnel)?.serve(plan);
          destroySecrets([plan]);
        } else if (message.type === "destroy") {
          tunnels.get(message.tunnel)?.destroy();
        } else if (message.type === "acquired") {
          limits.acquired(message.requestId);
        } else {
          const value = await answer(message, handle as SocketHandle | undefined);
          send({ type: "answer", request: message.request, value });
        }
      });
    });
    process.once("disconnect", () => {
      const closed = [...tunnels.values()].map((tunnel) => {
        tunnel.destroy();
        return tunnel.drain();
      });
      // The other side of each connection is reset in a later iteration of the event loop.
      void Promise.all(closed).then(() => resolve(0));
      startTimeout(MAX_RESET_MS, () => resolve(0));
    });
  });
}
