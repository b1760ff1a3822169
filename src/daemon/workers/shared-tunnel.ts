/** A tunnel that the workers serve, as the primary sees it. */

import type { TunnelPlan } from "../../config/plan.ts";
import type { BoundSocket } from "../../net/bound-socket.ts";
import type { Log } from "../observe/log.ts";
import type { Tunnel } from "../tunnel.ts";
import type { SocketError } from "./messages.ts";
import { packPlan } from "./portable-plan.ts";
import type { WorkerHandle } from "./worker-handle.ts";

/** What a tunnel needs of the pool that it belongs to. */
export interface TunnelPool {
  /** The workers that take messages. */
  workers(): readonly WorkerHandle[];
  /** Called before a plan becomes active: from now on, workers that become ready are to serve the tunnel too. */
  onChange(tunnel: SharedTunnel, plan: TunnelPlan): void;
  /** Called when workers that become ready are not to serve the tunnel any more. */
  onEnd(tunnel: SharedTunnel): void;
  readonly log: Log;
}

let count = 0;

export class SharedTunnel implements Tunnel {
  /** What messages call it. */
  readonly #id = ++count;
  readonly #socket: BoundSocket;
  readonly #pool: TunnelPool;
  #plan: TunnelPlan | undefined;
  /** Settles `serve()` when the first worker listens, or can't. */
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
        worker.send({ type: "change", tunnel: this.#id, plan: packPlan(plan) });
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

  /** Has a worker serve the tunnel that is ready now. */
  listenIn(worker: WorkerHandle): void {
    const plan = this.#plan;
    if (plan === undefined) return;
    void worker
      .ask((request) => ({ type: "listen", tunnel: this.#id, plan: packPlan(plan), request }), this.#socket)
      .then((answer) => {
        // The worker is dead, and another will be asked.
        if (answer === undefined) return;
        const error = answer === true ? undefined : (answer as SocketError);
        if (this.#onFirstAnswer !== undefined) this.#onFirstAnswer(error);
        else if (error !== undefined)
          this.#pool.log.warn(`Worker ${worker.pid} can't listen: ${error.message}`);
      });
  }

  async drain(): Promise<void> {
    this.destroy();
    await this.#askAll("drain");
  }

  /** Closes the primary's copy of the listening socket; connections end with the workers. */
  destroy(): void {
    this.#pool.onEnd(this);
    this.#socket.close();
  }

  async reachable(): Promise<boolean | undefined> {
    const answers = await this.#askAll("reachable");
    return answers.length === 0 ? undefined : answers.every(Boolean);
  }

  async countConnections(): Promise<number> {
    const counts = (await this.#askAll("connections")) as number[];
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** Returns the answers of the workers that have given one. */
  async #askAll(type: "drain" | "reachable" | "connections"): Promise<unknown[]> {
    const answers = await Promise.all(
      this.#pool.workers().map((worker) => worker.ask((request) => ({ type, tunnel: this.#id, request }))),
    );
    return answers.filter((answer) => answer !== undefined);
  }
}
