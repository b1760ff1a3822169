/**
 * Several processes that share the work (`--workers`), on `node:cluster`. The first process listens, drops privileges
 * and hands each accepted socket to the next worker in turn; limits are counted there, over all workers. A worker only
 * serves connections. One that dies is replaced; what it served is lost.
 */
import cluster, { type Worker } from "node:cluster";
import type { Socket } from "node:net";
import type { Registry } from "prom-client";
import { deadline } from "../tunnel/deadline.ts";
import { watchDescriptors } from "../tunnel/descriptors.ts";
import { adoptDirect } from "../tunnel/direct-read.ts";
import { ignoreErrors } from "../tunnel/ignore-errors.ts";
import type { SlotCounter } from "../tunnel/slots.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import { type Backend, LocalBackend } from "./backend.ts";
import { connectionLog } from "./connection-log.ts";
import { Limits, limitId } from "./limits.ts";
import type { Fields, Log } from "./log.ts";
import type { MetricsOfProcess } from "./metrics.ts";
import { allObservers, type Observer } from "./observer.ts";
import { type PortablePlan, packPlan, type TunnelPlan, unpackPlan } from "./plan.ts";

/** How long to wait before a worker is replaced that could not even start, ms. */
const RESTART_DELAY = 1000;

/** How many sockets may wait while no worker is ready, beyond which new ones are closed. */
const UNSERVED_CAPACITY = 1024;

/** What the first process tells a worker. */
type Order =
  | { readonly type: "setup"; readonly tellConnections: boolean; readonly measure: boolean }
  | { readonly type: "apply"; readonly plan: PortablePlan }
  | { readonly type: "socket"; readonly tunnel: string | undefined }
  | { readonly type: "drain"; readonly tunnel: string | undefined; readonly request: number }
  | { readonly type: "reachable"; readonly request: number }
  | { readonly type: "metrics"; readonly request: number }
  | { readonly type: "granted"; readonly ticket: number };

/** What a worker tells the first process. */
type Report =
  | { readonly type: "ready" }
  | { readonly type: "received" }
  | {
      readonly type: "log";
      readonly level: "warn" | "info";
      readonly message: string;
      readonly fields?: Fields;
    }
  | { readonly type: "answer"; readonly request: number; readonly value: unknown }
  | { readonly type: "take"; readonly limit: string; readonly ticket: number }
  | { readonly type: "leave"; readonly limit: string; readonly ticket: number }
  | { readonly type: "release"; readonly limit: string };

/** How to run workers. */
export interface WorkerOptions {
  readonly count: number;
  readonly log: Log;
  /** Whether each connection is logged. */
  readonly tellConnections: boolean;
  /** Whether metrics are collected. */
  readonly measure: boolean;
}

/** What the first process knows of a worker. */
interface Hand {
  readonly worker: Worker;
  ready: boolean;
  /**
   * Sockets for it. They are sent one at a time, and kept open until the worker has received them: what a channel holds
   * when its worker dies is never closed by Node.
   */
  readonly outbox: [string | undefined, Socket][];
  sending: Socket | undefined;
  /** Slots that its connections hold, by limit. */
  readonly taken: Map<string, number>;
  /** Leaves the queues in which its connections wait, by ticket. */
  readonly waiting: Map<number, () => void>;
}

/** Serves in workers. To be used in the first process. */
export class WorkerBackend implements Backend {
  readonly #options: WorkerOptions;
  readonly #limits: Limits;
  readonly #plans = new Map<string | undefined, TunnelPlan>();
  readonly #hands: Hand[] = [];
  readonly #answers = new Map<number, { readonly hand: Hand; readonly resolve: (value: unknown) => void }>();
  /** Sockets that were accepted while no worker was ready. */
  #unserved: [string | undefined, Socket][] = [];
  #measuring: Promise<MetricsOfProcess[]> | undefined;
  #requests = 0;
  #turn = 0;
  #ending = false;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#limits = new Limits(options.log);
  }

  /** Starts the workers, with the privileges that this process has now. */
  start(): void {
    cluster.setupPrimary({ serialization: "advanced" });
    for (let i = 0; i < this.#options.count; i += 1) this.#startOne();
  }

  apply(plan: TunnelPlan): void {
    this.#plans.set(plan.name, plan);
    this.#limits.get(plan.name, undefined, plan.maxConnections);
    for (const { name, maxConnections } of plan.keys) {
      if (maxConnections !== undefined) this.#limits.get(plan.name, name, maxConnections);
    }
    for (const { worker } of this.#hands) tell(worker, { type: "apply", plan: packPlan(plan) });
  }

  accept(tunnel: string | undefined, socket: Socket): void {
    ignoreErrors(socket);
    const ready = this.#hands.filter((hand) => hand.ready && hand.worker.isConnected());
    const hand = ready[this.#turn++ % ready.length];
    if (hand !== undefined) {
      hand.outbox.push([tunnel, socket]);
      this.#sendNext(hand);
    } else if (this.#unserved.length < UNSERVED_CAPACITY) {
      this.#unserved.push([tunnel, socket]);
    } else {
      socket.destroy();
    }
  }

  #sendNext(hand: Hand): void {
    if (hand.sending !== undefined || !hand.worker.isConnected()) return;
    const next = hand.outbox.shift();
    if (next === undefined) return;
    const [tunnel, socket] = next;
    // Its client has left.
    if (socket.destroyed) {
      this.#sendNext(hand);
      return;
    }
    hand.sending = socket;
    hand.worker.send({ type: "socket", tunnel } satisfies Order, socket, { keepOpen: true }, () => {});
  }

  async drain(tunnel: string | undefined): Promise<void> {
    this.#plans.delete(tunnel);
    await this.#askAll((request) => ({ type: "drain", tunnel, request }));
  }

  end(): void {
    this.#ending = true;
  }

  destroy(): void {
    this.end();
    for (const { worker } of this.#hands) worker.process.kill("SIGKILL");
  }

  async reachable(): Promise<boolean> {
    const answers = await this.#askAll((request) => ({ type: "reachable", request }));
    return answers.every((answer) => answer !== false);
  }

  /** The metrics of each worker. They are asked for once for all who want to know at the same time. */
  metrics(): Promise<MetricsOfProcess[]> {
    this.#measuring ??= this.#askAll((request) => ({ type: "metrics", request })).then((answers) => {
      this.#measuring = undefined;
      return answers.filter((answer) => answer !== undefined) as MetricsOfProcess[];
    });
    return this.#measuring;
  }

  /** Asks all workers something; the answer of one that dies instead is undefined. */
  #askAll(order: (request: number) => Order): Promise<unknown[]> {
    const connected = this.#hands.filter(({ worker }) => worker.isConnected());
    return Promise.all(
      connected.map((hand) => {
        const request = ++this.#requests;
        return new Promise<unknown>((resolve) => {
          this.#answers.set(request, { hand, resolve });
          tell(hand.worker, order(request));
        });
      }),
    );
  }

  #startOne(): void {
    let worker: Worker;
    try {
      worker = cluster.fork();
    } catch (error) {
      this.#startLater(`Cannot start a worker: ${systemErrorText(error)}; will try again`, RESTART_DELAY);
      return;
    }
    const hand: Hand = {
      worker,
      ready: false,
      outbox: [],
      sending: undefined,
      taken: new Map(),
      waiting: new Map(),
    };
    this.#hands.push(hand);
    const { tellConnections, measure } = this.#options;
    worker.on("message", (report: Report) => this.#hear(hand, report));
    worker.once("exit", (status, signal) => this.#lose(hand, signal ?? `status ${status}`));
    worker.on("error", (error: Error) => {
      // Of a process that could not be started no exit is told.
      if (worker.process.pid === undefined) this.#lose(hand, systemErrorText(error));
    });
    tell(worker, { type: "setup", tellConnections, measure });
    for (const plan of this.#plans.values()) tell(worker, { type: "apply", plan: packPlan(plan) });
  }

  #lose(hand: Hand, how: string): void {
    const index = this.#hands.indexOf(hand);
    if (index < 0) return;
    this.#hands.splice(index, 1);
    for (const leave of hand.waiting.values()) leave();
    for (const [limit, count] of hand.taken) {
      for (let i = 0; i < count; i += 1) this.#limits.byId(limit)?.release();
    }
    for (const [request, answer] of this.#answers) {
      if (answer.hand !== hand) continue;
      this.#answers.delete(request);
      answer.resolve(undefined);
    }
    hand.sending?.destroy();
    for (const [tunnel, socket] of hand.outbox.splice(0)) {
      if (this.#ending) socket.destroy();
      else this.accept(tunnel, socket);
    }
    const { pid } = hand.worker.process;
    const message =
      pid === undefined
        ? `Cannot start a worker: ${how}; will try again`
        : `Worker ${pid} ended (${how}): its connections are lost, another takes its place`;
    this.#startLater(message, hand.ready ? 0 : RESTART_DELAY);
  }

  #startLater(why: string, delay: number): void {
    if (this.#ending) return;
    this.#options.log.warn(why);
    deadline(delay, () => {
      if (!this.#ending) this.#startOne();
    });
  }

  #hear(hand: Hand, report: Report): void {
    switch (report.type) {
      case "ready": {
        hand.ready = true;
        const unserved = this.#unserved;
        this.#unserved = [];
        for (const [tunnel, socket] of unserved) this.accept(tunnel, socket);
        break;
      }
      case "received":
        hand.sending?.destroy();
        hand.sending = undefined;
        this.#sendNext(hand);
        break;
      case "log":
        this.#options.log[report.level](report.message, report.fields);
        break;
      case "answer":
        this.#answers.get(report.request)?.resolve(report.value);
        this.#answers.delete(report.request);
        break;
      case "take":
        this.#take(hand, report.limit, report.ticket);
        break;
      case "leave": {
        const leave = hand.waiting.get(report.ticket);
        hand.waiting.delete(report.ticket);
        // Where nobody waits, the grant is under way to one who has left.
        if (leave !== undefined) leave();
        else this.#release(hand, report.limit);
        break;
      }
      case "release":
        this.#release(hand, report.limit);
        break;
    }
  }

  #release(hand: Hand, limit: string): void {
    hand.taken.set(limit, (hand.taken.get(limit) ?? 1) - 1);
    this.#limits.byId(limit)?.release();
  }

  #take(hand: Hand, limit: string, ticket: number): void {
    let granted = false;
    const leave = this.#limits.byId(limit)?.take(() => {
      granted = true;
      hand.waiting.delete(ticket);
      hand.taken.set(limit, (hand.taken.get(limit) ?? 0) + 1);
      tell(hand.worker, { type: "granted", ticket });
    });
    if (!granted && leave !== undefined) hand.waiting.set(ticket, leave);
  }
}

function tell(worker: Worker, order: Order): void {
  if (worker.isConnected()) worker.send(order, () => {});
}

/** Serves as a worker, until the first process is gone or has no more work. */
export function runWorker(): Promise<number> {
  const report = (message: Report) => void process.send?.(message, () => {});
  const log: Log = {
    warn: (message, fields) => report({ type: "log", level: "warn", message, ...(fields && { fields }) }),
    info: (message, fields) => report({ type: "log", level: "info", message, ...(fields && { fields }) }),
  };
  const remote = new RemoteLimits(report);
  const watch = watchDescriptors((error) => log.warn(`Error accepting a connection: ${error.message}`));
  let backend: LocalBackend | undefined;
  let registry: Registry | undefined;
  // They come to the whole group of processes; the first process says what follows from them.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => {});

  const obey = async (order: Order, socket: Socket | undefined) => {
    switch (order.type) {
      case "setup": {
        const observers: Observer[] = order.tellConnections ? [connectionLog(log)] : [];
        if (order.measure) {
          const { makeMetrics, makeRegistry } = await import("./metrics.ts");
          const metrics = makeMetrics(makeRegistry());
          registry = metrics.registry;
          observers.push(metrics.observer);
        }
        const observer = observers.length === 0 ? undefined : allObservers(...observers);
        const slots = (plan: TunnelPlan, key: { readonly name?: string | undefined } | undefined) =>
          remote.get(limitId(plan.name, key?.name));
        backend = new LocalBackend({ log, observer, slots });
        report({ type: "ready" });
        break;
      }
      case "apply":
        backend?.apply(unpackPlan(order.plan));
        break;
      case "socket":
        report({ type: "received" });
        // It may have been closed on its way.
        if (socket === undefined) break;
        watch(socket);
        backend?.accept(order.tunnel, adoptDirect(socket));
        break;
      case "drain":
        await backend?.drain(order.tunnel);
        report({ type: "answer", request: order.request, value: true });
        break;
      case "reachable":
        report({ type: "answer", request: order.request, value: (await backend?.reachable()) ?? true });
        break;
      case "metrics":
        report({ type: "answer", request: order.request, value: await registry?.getMetricsAsJSON() });
        break;
      case "granted":
        remote.granted(order.ticket);
        break;
    }
  };
  return new Promise((resolve) => {
    // Orders are obeyed in their sequence, but for the long ones: nothing waits for a drain.
    let ready: Promise<void> = Promise.resolve();
    process.on("message", (order: Order, handle: unknown) => {
      const socket = handle as Socket | undefined;
      if (order.type === "setup") ready = obey(order, socket);
      else void ready.then(() => obey(order, socket));
    });
    process.once("disconnect", () => {
      backend?.destroy();
      resolve(0);
    });
  });
}

/** Limits that are counted in the first process. */
class RemoteLimits {
  readonly #report: (message: Report) => void;
  readonly #granted = new Map<number, () => void>();
  #tickets = 0;

  constructor(report: (message: Report) => void) {
    this.#report = report;
  }

  get(limit: string): SlotCounter {
    const report = this.#report;
    const granted = this.#granted;
    const nextTicket = () => ++this.#tickets;
    let waiting = 0;
    return {
      get waiting() {
        return waiting;
      },
      take(grant) {
        const ticket = nextTicket();
        waiting += 1;
        let given = false;
        granted.set(ticket, () => {
          given = true;
          waiting -= 1;
          grant();
        });
        report({ type: "take", limit, ticket });
        return () => {
          if (given) return;
          waiting -= 1;
          granted.delete(ticket);
          report({ type: "leave", limit, ticket });
        };
      },
      release: () => report({ type: "release", limit }),
    };
  }

  granted(ticket: number): void {
    const grant = this.#granted.get(ticket);
    this.#granted.delete(ticket);
    grant?.();
  }
}
