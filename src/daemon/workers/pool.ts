/**
 * Runs worker processes that share the load (`--workers`). The primary binds addresses, drops privileges and counts
 * connection limits. Each worker gets the listening sockets and accepts connections itself, so no connection is passed
 * between processes or waits for a worker that hangs. A worker that exits is replaced; its connections are lost.
 */
import { type ChildProcess, fork } from "node:child_process";
import type { TunnelPlan } from "../../config/plan.ts";
import { canBindWithoutListening } from "../../net/bound-socket.ts";
import { systemErrorText } from "../../net/system-error.ts";
import { startTimeout } from "../../net/timers.ts";
import { Limits } from "../limits.ts";
import type { Log } from "../observe/log.ts";
import type { ProcessMetrics } from "../observe/metrics.ts";
import type { WorkerStatus } from "../observe/status-server.ts";
import { childNodeOptions } from "../process/no-debugger.ts";
import { bindSource, type Tunnel, type TunnelFactory } from "../tunnel.ts";
import { CANNOT_SHARE, parseWorkerMessage, WORKER_VARIABLE } from "./messages.ts";
import { SharedTunnel } from "./shared-tunnel.ts";
import { WorkerHandle } from "./worker-handle.ts";

/** Delay before a worker that did not become ready is replaced, in ms. */
const RESTART_DELAY_MS = 1000;

/** Interval between pings to each worker, in ms. */
const PING_INTERVAL_MS = 250;

/** Time without messages after which a worker is logged as unresponsive, in ms. */
const REPORT_AFTER_MS = 3000;

/**
 * Time without messages after which the last workers are killed during a drain, in ms: those stopped by a signal, and
 * others.
 */
const KILL_STOPPED_AFTER_MS = 1000;
const KILL_AFTER_MS = 30_000;

/** Maximum time for drained workers to exit, in ms. */
const EXIT_TIMEOUT_MS = 1000;

/** Options of a WorkerPool. */
export interface WorkerOptions {
  readonly count: number;
  readonly log: Log;
  /** True to log each connection. */
  readonly logConnections: boolean;
  readonly collectMetrics: boolean;
  /** True to warm up each worker before it accepts connections. */
  readonly warmsUp: boolean;
}

/** Runs the workers and creates the tunnels that they serve. Used in the primary. */
export class WorkerPool implements TunnelFactory {
  readonly #options: WorkerOptions;
  readonly #limits: Limits;
  readonly #tunnels = new Set<SharedTunnel>();
  readonly #workers = new Set<WorkerHandle>();
  #watch: NodeJS.Timeout | undefined;
  #stopping = false;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#limits = new Limits(options.log);
  }

  /** Starts the workers with the current privileges of this process. */
  start(): void {
    for (let i = 0; i < this.#options.count; i += 1) this.#startWorker();
    this.#watch = setInterval(() => {
      for (const worker of this.#workers) worker.send({ type: "ping" });
      // Process messages that have already arrived before checking for unresponsive workers.
      setImmediate(() => this.#checkWorkers());
    }, PING_INTERVAL_MS);
  }

  async open(plan: TunnelPlan, inherited?: number): Promise<Tunnel> {
    const socket = canBindWithoutListening() ? await bindSource(plan, inherited) : undefined;
    if (socket === undefined) throw new Error(CANNOT_SHARE);
    return new SharedTunnel(socket, {
      workers: () => [...this.#workers].filter(({ isReady }) => isReady),
      onChange: (tunnel, plan) => {
        this.#tunnels.add(tunnel);
        this.#setLimits(plan);
      },
      onEnd: (tunnel) => this.#tunnels.delete(tunnel),
      log: this.#options.log,
    });
  }

  /** Returns the status of each worker. */
  status(): readonly WorkerStatus[] {
    return [...this.#workers].map((worker) => ({ pid: worker.pid, responding: !worker.isUnresponsive() }));
  }

  /** Resolves with the metrics of each worker, the last known ones if it does not respond. */
  async metrics(): Promise<ProcessMetrics[]> {
    const workers = [...this.#workers];
    await Promise.all(workers.map((worker) => worker.updateMetrics()));
    return workers.map(({ metrics }) => metrics).filter((metrics) => metrics !== undefined);
  }

  /**
   * Prepares for the drain: workers that exit are no longer replaced, and unresponsive ones are killed when all others
   * have drained.
   */
  stop(): void {
    this.#stopping = true;
  }

  /** Resolves when the drained workers have exited. */
  async exited(): Promise<void> {
    clearInterval(this.#watch);
    await Promise.all([...this.#workers].map((worker) => worker.exit(EXIT_TIMEOUT_MS)));
  }

  /** Makes the workers reset their connections and exit. */
  destroy(): void {
    this.stop();
    for (const worker of this.#workers) {
      if (worker.isStopped || worker.isUnresponsive()) worker.kill();
      else void worker.exit(EXIT_TIMEOUT_MS);
    }
  }

  #checkWorkers(): void {
    for (const worker of this.#workers) {
      if (worker.isUnresponsive()) worker.abandonQueries();
      const isStuck = worker.isReady && worker.isUnresponsive(REPORT_AFTER_MS);
      if (worker.isReported === isStuck) continue;
      worker.isReported = isStuck;
      this.#options.log.warn(
        isStuck
          ? `worker ${worker.pid} does not respond; the others accept new connections`
          : `worker ${worker.pid} responds again`,
      );
    }
    if (this.#stopping) this.#killStuckWorkers();
  }

  /** Kills the workers that have not drained, if all of them are unresponsive. */
  #killStuckWorkers(): void {
    const unfinished = [...this.#workers].filter(({ isDraining }) => isDraining);
    const isStuck = (worker: WorkerHandle) =>
      worker.isUnresponsive(KILL_AFTER_MS) ||
      (worker.isUnresponsive(KILL_STOPPED_AFTER_MS) && worker.isStopped);
    if (unfinished.every(isStuck)) for (const worker of unfinished) worker.kill();
  }

  #startWorker(): void {
    let child: ChildProcess;
    try {
      child = fork(process.argv[1]!, process.argv.slice(2), {
        execArgv: childNodeOptions(),
        env: { ...process.env, [WORKER_VARIABLE]: "1" },
        serialization: "advanced",
        stdio: ["ignore", "inherit", "inherit", "ipc"],
      });
    } catch (error) {
      this.#scheduleRestart(`cannot start worker: ${systemErrorText(error)}; retrying`, RESTART_DELAY_MS);
      return;
    }
    const worker = new WorkerHandle(child);
    this.#workers.add(worker);
    child.on("message", (message: unknown) => this.#onMessage(worker, message));
    child.once("exit", (status, signal) => this.#onExit(worker, signal ?? `status ${String(status)}`));
    // A process that could not be started emits no "exit" event.
    child.on("error", (error) => {
      if (child.pid === undefined) this.#onExit(worker, systemErrorText(error));
    });
    const { count, logConnections, collectMetrics, warmsUp } = this.#options;
    worker.send({ type: "setup", workers: count, logConnections, collectMetrics, warmsUp });
  }

  #onExit(worker: WorkerHandle, cause: string): void {
    if (!this.#workers.delete(worker)) return;
    for (const cancel of worker.slotRequests.values()) cancel();
    for (const [limit, count] of worker.slotsHeld) {
      for (let i = 0; i < count; i += 1) this.#limits.byId(limit)?.release();
    }
    worker.abandonAll();
    const message =
      worker.process.pid === undefined
        ? `cannot start worker: ${cause}; retrying`
        : `worker ${worker.pid} exited (${cause}): its connections were lost; restarting`;
    this.#scheduleRestart(message, worker.isReady ? 0 : RESTART_DELAY_MS);
  }

  #scheduleRestart(message: string, delay: number): void {
    if (this.#stopping) return;
    this.#options.log.warn(message);
    startTimeout(delay, () => {
      if (!this.#stopping) this.#startWorker();
    });
  }

  #onMessage(worker: WorkerHandle, received: unknown): void {
    // Messages may arrive after the exit of their sender, whose slots are released.
    if (!this.#workers.has(worker)) return;
    worker.onActivity();
    const message = parseWorkerMessage(received);
    if (message === undefined) {
      this.#reportInvalidMessages(worker);
      return;
    }
    switch (message.type) {
      case "ready":
        worker.isReady = true;
        for (const tunnel of this.#tunnels) tunnel.listenIn(worker);
        break;
      case "pong":
        break;
      case "log":
        this.#options.log[message.level](message.message, message.fields);
        break;
      case "answer":
        worker.onAnswer(message.request, message.value);
        break;
      case "acquire":
        this.#acquire(worker, message.limit, message.requestId);
        break;
      case "cancel": {
        const cancel = worker.slotRequests.get(message.requestId);
        worker.slotRequests.delete(message.requestId);
        // The grant crossed the cancellation: release the slot.
        if (cancel === undefined) this.#release(worker, message.limit);
        else cancel();
        break;
      }
      case "release":
        this.#release(worker, message.limit);
        break;
    }
  }

  #reportInvalidMessages(worker: WorkerHandle): void {
    if (worker.hasSentInvalid) return;
    worker.hasSentInvalid = true;
    this.#options.log.warn(
      `ignoring invalid messages from worker ${worker.pid}: if another version was installed, restart the daemon`,
    );
  }

  #setLimits({ name, settings, keys }: TunnelPlan): void {
    this.#limits.get(name, undefined, settings.maxConnections);
    for (const key of keys) {
      if (key.maxConnections !== undefined) this.#limits.get(name, key.name, key.maxConnections);
    }
  }

  #acquire(worker: WorkerHandle, limit: string, requestId: number): void {
    if (worker.slotRequests.has(requestId)) {
      this.#reportInvalidMessages(worker);
      return;
    }
    let granted = false;
    const cancel = this.#limits.byId(limit)?.acquire(() => {
      granted = true;
      worker.slotRequests.delete(requestId);
      worker.slotsHeld.set(limit, (worker.slotsHeld.get(limit) ?? 0) + 1);
      worker.send({ type: "acquired", requestId });
    });
    if (!granted && cancel !== undefined) worker.slotRequests.set(requestId, cancel);
  }

  #release(worker: WorkerHandle, limit: string): void {
    const held = worker.slotsHeld.get(limit) ?? 0;
    if (held === 0) {
      this.#reportInvalidMessages(worker);
      return;
    }
    worker.slotsHeld.set(limit, held - 1);
    this.#limits.byId(limit)?.release();
  }
}
