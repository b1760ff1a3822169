/** A worker, as the primary sees it: what it was asked and has not answered, and when it was heard of last. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { BoundSocket } from "../../net/bound-socket.ts";
import { deadline } from "../../net/timers.ts";
import type { MetricsOfProcess } from "../observe/metrics.ts";
import type { ParentMessage } from "./messages.ts";

/** A question that a worker has not answered. */
interface Question {
  readonly type: ParentMessage["type"];
  readonly resolve: (answer: unknown) => void;
}

/** How long a worker may send nothing before it counts as silent, ms. */
const SILENT_AFTER_MS = 500;

export class WorkerHandle {
  readonly process: ChildProcess;
  /** Whether it takes messages other than "setup". */
  ready = false;
  /** Whether it was reported as silent. */
  reported = false;
  /** Slots that its connections hold, by limit. */
  readonly taken = new Map<string, number>();
  /** Leaves the queues in which its connections wait for a slot, by ticket. */
  readonly waiting = new Map<number, () => void>();
  /** What it sent last when it was asked for its metrics. */
  metrics: MetricsOfProcess | undefined;
  readonly #questions = new Map<number, Question>();
  #requests = 0;
  #heardAt = performance.now();

  constructor(child: ChildProcess) {
    this.process = child;
  }

  /** Its process ID; 0 if it could not be started. */
  get pid(): number {
    return this.process.pid ?? 0;
  }

  /** Whether it has connections of a tunnel that is drained. */
  get isDraining(): boolean {
    return [...this.#questions.values()].some(({ type }) => type === "drain");
  }

  /** True if it has sent nothing for so long, ms. */
  isSilent(time = SILENT_AFTER_MS): boolean {
    return performance.now() - this.#heardAt > time;
  }

  /** True if a signal has stopped the process (SIGSTOP); false where the system does not say. */
  get isStopped(): boolean {
    try {
      const status = readFileSync(`/proc/${this.pid}/stat`, "latin1");
      return /\) [Tt] /.test(status.slice(status.lastIndexOf(")")));
    } catch {
      return false;
    }
  }

  /** To be called with each message that it sends. */
  heard(): void {
    this.#heardAt = performance.now();
  }

  send(message: ParentMessage, socket?: BoundSocket): void {
    // Node sends such handles too, although its documentation names only servers and sockets.
    const handle = socket?.handle as Parameters<ChildProcess["send"]>[1];
    if (this.process.connected) this.process.send(message, handle, () => {});
  }

  /**
   * Asks it something.
   *
   * @returns its answer; undefined if it dies, or if it was asked how it is and is silent.
   */
  ask(question: (request: number) => ParentMessage, socket?: BoundSocket): Promise<unknown> {
    const request = ++this.#requests;
    return new Promise((resolve) => {
      const message = question(request);
      this.#questions.set(request, { resolve, type: message.type });
      this.send(message, socket);
    });
  }

  /** To be called with each answer. */
  answered(request: number, answer: unknown): void {
    this.#questions.get(request)?.resolve(answer);
    this.#questions.delete(request);
  }

  /** Answers for a silent worker what can't wait until it goes on. */
  giveUpQuestions(): void {
    for (const [request, { type }] of this.#questions) {
      if (type === "reachable" || type === "connections" || type === "metrics")
        this.answered(request, undefined);
    }
  }

  /** Answers for a worker that is dead. */
  giveUpAll(): void {
    for (const request of this.#questions.keys()) this.answered(request, undefined);
  }

  /** Asks for its metrics; they stay as they were if it does not answer. */
  async updateMetrics(): Promise<void> {
    const answer = await this.ask((request) => ({ type: "metrics", request }));
    this.metrics = (answer as MetricsOfProcess | undefined) ?? this.metrics;
  }

  kill(): void {
    this.process.kill("SIGKILL");
  }

  /** Has it exit, which it may take `timeout` ms for. */
  async exit(timeout: number): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const cancel = deadline(timeout, () => this.kill());
    const exited = once(this.process, "exit");
    if (this.process.connected) this.process.disconnect();
    await exited;
    cancel();
  }
}
