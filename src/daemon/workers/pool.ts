/**
 * Several processes that share the work (`--workers`). The primary binds addresses and drops privileges; each worker
 * gets the listening sockets and accepts for itself, so that no connection ever crosses a process boundary and none waits
 * for a worker that hangs. What is limited over all workers is counted here. A worker that dies is replaced; the
 * connections that it served are lost.
 */
import { type ChildProcess, fork } from "node:child_process";
import type { TunnelPlan } from "../../config/plan.ts";
import { systemErrorText } from "../../net/system-error.ts";
import { deadline } from "../../net/timers.ts";
import { Limits } from "../limits.ts";
import type { Log } from "../observe/log.ts";
import type { MetricsOfProcess } from "../observe/metrics.ts";
import type { WorkerStatus } from "../observe/status-server.ts";
import { childNodeOptions } from "../process/no-debugger.ts";
import { bindSource, type Tunnel, type TunnelFactory } from "../tunnel.ts";
import { WORKER_VARIABLE, type WorkerMessage } from "./messages.ts";
import { SharedTunnel } from "./shared-tunnel.ts";
import { WorkerHandle } from "./worker-handle.ts";

/** How long to wait before a worker is replaced that did not become ready, ms. */
const RESTART_DELAY_MS = 1000;

/** How often each worker is asked for a sign of life, ms. */
const PING_INTERVAL_MS = 250;

/** How long a worker may send nothing before that is logged, ms. */
const REPORT_AFTER_MS = 3000;

/** How long it may do so, while all other work is done, before it is killed, ms: stopped by a signal, or for other reasons. */
const KILL_STOPPED_AFTER_MS = 1000;
const KILL_AFTER_MS = 30_000;

/** How long workers may take to exit when they have nothing left to do, ms. */
const EXIT_TIMEOUT_MS = 1000;

/** How to run workers. */
export interface WorkerOptions {
  readonly count: number;
  readonly log: Log;
  /** Whether each connection is logged. */
  readonly logConnections: boolean;
  readonly collectMetrics: boolean;
}

/** Runs the workers, and makes the tunnels that they serve. To be used in the primary. */
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

  /** Starts the workers, with the privileges that this process has now. */
  start(): void {
    for (let i = 0; i < this.#options.count; i += 1) this.#startWorker();
    this.#watch = setInterval(() => {
      for (const worker of this.#workers) worker.send({ type: "ping" });
      // What the workers have sent until now is read before they are judged.
      setImmediate(() => this.#checkWorkers());
    }, PING_INTERVAL_MS);
  }

  async open(plan: TunnelPlan, inherited?: number): Promise<Tunnel> {
    const socket = await bindSource(plan, inherited);
    if (socket === undefined) throw new Error("this version of Node can't share a socket among processes");
    return new SharedTunnel(socket, {
      workers: () => [...this.#workers].filter(({ ready }) => ready),
      onChange: (tunnel, plan) => {
        this.#tunnels.add(tunnel);
        this.#setLimits(plan);
      },
      onEnd: (tunnel) => this.#tunnels.delete(tunnel),
      log: this.#options.log,
    });
  }

  /** How the workers are. */
  status(): readonly WorkerStatus[] {
    return [...this.#workers].map((worker) => ({ pid: worker.pid, responding: !worker.isSilent() }));
  }

  /** The metrics of each worker; those that it sent last if it does not respond. */
  async metrics(): Promise<MetricsOfProcess[]> {
    const workers = [...this.#workers];
    await Promise.all(workers.map((worker) => worker.updateMetrics()));
    return workers.map(({ metrics }) => metrics).filter((metrics) => metrics !== undefined);
  }

  /**
   * Has the workers end when their tunnels are drained. From now on none is replaced, and one that is stuck is killed
   * when the others are done.
   */
  stop(): void {
    this.#stopping = true;
  }

  /** Resolves when the workers, which have nothing left to do, are gone. */
  async exited(): Promise<void> {
    clearInterval(this.#watch);
    await Promise.all([...this.#workers].map((worker) => worker.exit(EXIT_TIMEOUT_MS)));
  }

  /** Kills the workers now. */
  destroy(): void {
    this.stop();
    for (const worker of this.#workers) worker.kill();
  }

  #checkWorkers(): void {
    for (const worker of this.#workers) {
      if (worker.isSilent()) worker.giveUpQuestions();
      const isStuck = worker.ready && worker.isSilent(REPORT_AFTER_MS);
      if (worker.reported === isStuck) continue;
      worker.reported = isStuck;
      this.#options.log.warn(
        isStuck
          ? `Worker ${worker.pid} does not respond: new connections go to the others`
          : `Worker ${worker.pid} responds again`,
      );
    }
    if (this.#stopping) this.#killStuckWorkers();
  }

  /** Kills the workers that will not finish what they were asked to, if they are the last ones. */
  #killStuckWorkers(): void {
    const unfinished = [...this.#workers].filter(({ isDraining }) => isDraining);
    const isStuck = (worker: WorkerHandle) =>
      worker.isSilent(KILL_AFTER_MS) || (worker.isSilent(KILL_STOPPED_AFTER_MS) && worker.isStopped);
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
      this.#startLater(`Cannot start a worker: ${systemErrorText(error)}; will try again`, RESTART_DELAY_MS);
      return;
    }
    const worker = new WorkerHandle(child);
    this.#workers.add(worker);
    child.on("message", (message: WorkerMessage) => this.#onMessage(worker, message));
    child.once("exit", (status, signal) => this.#onExit(worker, signal ?? `status ${status}`));
    // A process that could not be started has no exit.
    child.on("error", (error) => {
      if (child.pid === undefined) this.#onExit(worker, systemErrorText(error));
    });
    const { count, logConnections, collectMetrics } = this.#options;
    worker.send({ type: "setup", workers: count, logConnections, collectMetrics });
  }

  #onExit(worker: WorkerHandle, how: string): void {
    if (!this.#workers.delete(worker)) return;
    for (const cancel of worker.waiting.values()) cancel();
    for (const [limit, count] of worker.taken) {
      for (let i = 0; i < count; i += 1) this.#limits.byId(limit)?.release();
    }
    worker.giveUpAll();
    const message =
      worker.process.pid === undefined
        ? `Cannot start a worker: ${how}; will try again`
        : `Worker ${worker.pid} ended (${how}): its connections are lost, another takes its place`;
    this.#startLater(message, worker.ready ? 0 : RESTART_DELAY_MS);
  }

  #startLater(why: string, delay: number): void {
    if (this.#stopping) return;
    this.#options.log.warn(why);
    deadline(delay, () => {
      if (!this.#stopping) this.#startWorker();
    });
  }

  #onMessage(worker: WorkerHandle, message: WorkerMessage): void {
    worker.heard();
    switch (message.type) {
      case "ready":
        worker.ready = true;
        for (const tunnel of this.#tunnels) tunnel.listenIn(worker);
        break;
      case "pong":
        break;
      case "log":
        this.#options.log[message.level](message.message, message.fields);
        break;
      case "answer":
        worker.answered(message.request, message.value);
        break;
      case "acquire":
        this.#acquire(worker, message.limit, message.ticket);
        break;
      case "cancel": {
        const cancel = worker.waiting.get(message.ticket);
        worker.waiting.delete(message.ticket);
        // The grant and the cancellation have crossed.
        if (cancel === undefined) this.#release(worker, message.limit);
        else cancel();
        break;
      }
      case "release":
        this.#release(worker, message.limit);
        break;
    }
  }

  #setLimits({ name, maxConnections, keys }: TunnelPlan): void {
    this.#limits.get(name, undefined, maxConnections);
    for (const key of keys) {
      if (key.maxConnections !== undefined) this.#limits.get(name, key.name, key.maxConnections);
    }
  }

  #acquire(worker: WorkerHandle, limit: string, ticket: number): void {
    let granted = false;
    const cancel = this.#limits.byId(limit)?.take(() => {
      granted = true;
      worker.waiting.delete(ticket);
      worker.taken.set(limit, (worker.taken.get(limit) ?? 0) + 1);
      worker.send({ type: "acquired", ticket });
    });
    if (!granted && cancel !== undefined) worker.waiting.set(ticket, cancel);
  }

  #release(worker: WorkerHandle, limit: string): void {
    worker.taken.set(limit, (worker.taken.get(limit) ?? 1) - 1);
    this.#limits.byId(limit)?.release();
  }
}
