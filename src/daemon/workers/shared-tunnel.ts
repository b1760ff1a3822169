/** The primary's side of a tunnel that is served by workers. */
import type { TunnelPlan } from "../../config/plan.ts";
import type { BoundSocket } from "../../net/bound-socket.ts";
import type { Log } from "../observe/log.ts";
import type { Tunnel } from "../tunnel.ts";
import { CANNOT_SHARE, type SocketError } from "./messages.ts";
import { serializePlan } from "./serialized-plan.ts";
import type { WorkerHandle } from "./worker-handle.ts";

/** The parts of the worker pool that a tunnel uses. */
export interface TunnelPool {
  /** Returns the workers that are ready for messages. */
  workers(): readonly WorkerHandle[];
  /** Called before a plan becomes active; workers that become ready later must serve the tunnel too. */
  onChange(tunnel: SharedTunnel, plan: TunnelPlan): void;
  /** Called when workers that become ready must no longer serve the tunnel. */
  onEnd(tunnel: SharedTunnel): void;
  readonly log: Log;
}

let lastId = 0;

export class SharedTunnel implements Tunnel {
  /** ID of the tunnel in messages. */
  readonly #id = ++lastId;
  readonly #socket: BoundSocket;
  readonly #pool: TunnelPool;
  #plan: TunnelPlan | undefined;
  /** Settles `serve()` when the first worker listens or fails to. */
  #onFirstAnswer: ((error?: SocketError) => void) | undefined;

  constructor(socket: BoundSocket, pool: TunnelPool) {
    this.#socket = socket;
    this.#pool = pool;
  }

  async serve(plan: TunnelPlan): Promise<void> {
    const isFirst = this.#plan === undefined;
    this.#plan = plan;
    this.#pool.onChange(this, plan);
    if (!isFirst) {
      for (const worker of this.#pool.workers()) {
        worker.send({ type: "change", tunnel: this.#id, plan: serializePlan(plan) });
      }
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#onFirstAnswer = (error) => {
        this.#onFirstAnswer = undefined;
        if (error === undefined) resolve();
        else reject(Object.assign(new Error(error.message), { code: error.code }));
      };
      for (const worker of this.#pool.workers()) this.listenIn(worker);
    });
  }

  /** Makes a worker that has become ready serve the tunnel. */
  listenIn(worker: WorkerHandle): void {
    const plan = this.#plan;
    if (plan === undefined) return;
    void worker
      .request(
        (id) => ({ type: "listen", tunnel: this.#id, plan: serializePlan(plan), request: id }),
        this.#socket,
      )
      .catch((): SocketError => ({ code: "", message: CANNOT_SHARE }))
      .then((answer) => {
        // The worker has exited; its replacement will get the request.
        if (answer === undefined) return;
        const error = answer === true ? undefined : (answer as SocketError);
        if (this.#onFirstAnswer !== undefined) this.#onFirstAnswer(error);
        else if (error !== undefined)
          this.#pool.log.warn(`worker ${worker.pid} cannot listen: ${error.message}`);
      });
  }

  async drain(): Promise<void> {
    this.#close();
    await this.#requestAll("drain");
  }

  destroy(): void {
    this.#close();
    for (const worker of this.#pool.workers()) worker.send({ type: "destroy", tunnel: this.#id });
  }

  /** Closes the primary's copy of the listening socket. */
  #close(): void {
    this.#pool.onEnd(this);
    this.#socket.close();
  }

  async isReachable(): Promise<boolean | undefined> {
    const answers = await this.#requestAll("reachable");
    return answers.length === 0 ? undefined : answers.every(Boolean);
  }

  async countConnections(): Promise<number> {
    const counts = (await this.#requestAll("connections")) as number[];
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** Resolves with the answers of the workers that have answered. */
  async #requestAll(type: "drain" | "reachable" | "connections"): Promise<unknown[]> {
    const answers = await Promise.all(
      this.#pool.workers().map((worker) => worker.request((id) => ({ type, tunnel: this.#id, request: id }))),
    );
    return answers.filter((answer) => answer !== undefined);
  }
}
