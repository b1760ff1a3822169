/** The primary's side of a worker: its process, its pending requests, and the time of its last message. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { BoundSocket } from "../../net/bound-socket.ts";
import { startTimeout } from "../../net/timers.ts";
import type { ProcessMetrics } from "../observe/metrics.ts";
import { checkAnswer, type ParentMessage } from "./messages.ts";

/** A request that the worker has not answered. */
interface PendingRequest {
  readonly type: ParentMessage["type"];
  readonly resolve: (answer: unknown) => void;
}

/** Time without messages after which a worker is unresponsive, in ms. */
const UNRESPONSIVE_AFTER_MS = 500;

export class WorkerHandle {
  readonly process: ChildProcess;
  /** True if it accepts messages other than "setup". */
  isReady = false;
  /** True if it was logged as unresponsive. */
  isReported = false;
  /** True if it has sent an invalid message. */
  hasSentInvalid = false;
  /** Number of slots held by its connections, by limit ID. */
  readonly slotsHeld = new Map<string, number>();
  /** Functions that cancel its pending slot requests, by request ID. */
  readonly slotRequests = new Map<number, () => void>();
  /** The last known metrics. */
  metrics: ProcessMetrics | undefined;
  readonly #pending = new Map<number, PendingRequest>();
  #lastId = 0;
  #lastMessageAt = performance.now();

  constructor(child: ChildProcess) {
    this.process = child;
  }

  /** Process ID; 0 if the process could not be started. */
  get pid(): number {
    return this.process.pid ?? 0;
  }

  /** True if it has not finished draining a tunnel. */
  get isDraining(): boolean {
    return [...this.#pending.values()].some(({ type }) => type === "drain");
  }

  /** Returns true if it has sent no message for `time` ms. */
  isUnresponsive(time = UNRESPONSIVE_AFTER_MS): boolean {
    return performance.now() - this.#lastMessageAt > time;
  }

  /** True if the process is stopped by a signal (SIGSTOP); false if the system does not provide its state. */
  get isStopped(): boolean {
    try {
      const status = readFileSync(`/proc/${this.pid}/stat`, "latin1");
      return /\) [Tt] /.test(status.slice(status.lastIndexOf(")")));
    } catch {
      return false;
    }
  }

  /** Records that the worker has sent a message. */
  onActivity(): void {
    this.#lastMessageAt = performance.now();
  }

  /** @throws if Node cannot send the socket: its documentation mentions only servers and sockets, not such handles. */
  send(message: ParentMessage, socket?: BoundSocket): void {
    const handle = socket?.handle as Parameters<ChildProcess["send"]>[1];
    if (this.process.connected) this.process.send(message, handle, () => {});
  }

  /**
   * Sends a request.
   *
   * @param makeMessage - returns the request's message, given its number.
   * @returns the answer; undefined if it is invalid, if the worker exits, or if it is unresponsive and the request is only
   * a query.
   * Rejects if Node cannot send the socket.
   */
  request(makeMessage: (id: number) => ParentMessage, socket?: BoundSocket): Promise<unknown> {
    const id = ++this.#lastId;
    return new Promise((resolve) => {
      const message = makeMessage(id);
      this.send(message, socket);
      this.#pending.set(id, { resolve, type: message.type });
    });
  }

  /** Settles the request that an answer belongs to. */
  onAnswer(id: number, answer: unknown): void {
    const pending = this.#pending.get(id);
    if (pending !== undefined) this.#settle(id, checkAnswer(pending.type, answer));
  }

  #settle(id: number, answer: unknown): void {
    this.#pending.get(id)?.resolve(answer);
    this.#pending.delete(id);
  }

  /** Settles the pending queries of an unresponsive worker, without an answer; other requests stay pending. */
  abandonQueries(): void {
    for (const [id, { type }] of this.#pending) {
      if (type === "reachable" || type === "connections" || type === "metrics") this.#settle(id, undefined);
    }
  }

  /** Settles all pending requests of a worker that has exited, without an answer. */
  abandonAll(): void {
    for (const id of this.#pending.keys()) this.#settle(id, undefined);
  }

  /** Updates `metrics`; keeps the last known ones if the worker does not answer. */
  async updateMetrics(): Promise<void> {
    const answer = await this.request((id) => ({ type: "metrics", request: id }));
    this.metrics = (answer as ProcessMetrics | undefined) ?? this.metrics;
  }

  kill(): void {
    this.process.kill("SIGKILL");
  }

  /** Makes the worker exit and resolves when it has; kills it after `timeout` ms. */
  async exit(timeout: number): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const cancel = startTimeout(timeout, () => this.kill());
    const exited = once(this.process, "exit");
    if (this.process.connected) this.process.disconnect();
    await exited;
    cancel();
  }
}
