/** All tunnels of a process: their listening sockets, their servers, and what becomes of them when the plans change. */
import { chownSync } from "node:fs";
import type { Socket } from "node:net";
import { Listener } from "../tunnel/listener.ts";
import type { Backend } from "./backend.ts";
import type { Log } from "./log.ts";
import type { TunnelPlan } from "./plan.ts";
import { ownerIds } from "./privileges.ts";

interface Gate {
  readonly plan: TunnelPlan;
  readonly listener: Listener;
}

/** The tunnels of a daemon. */
export class Fleet {
  readonly #backend: Backend;
  readonly #log: Log;
  readonly #gates = new Map<string | undefined, Gate>();
  /** Sockets that were accepted before `start()`. */
  #early: [string | undefined, Socket][] | undefined = [];

  constructor(backend: Backend, log: Log) {
    this.#backend = backend;
    this.#log = log;
  }

  /** Where the tunnels listen. */
  get listeners(): readonly Listener[] {
    return [...this.#gates.values()].map(({ listener }) => listener);
  }

  /**
   * Binds and listens for all plans. Clients can connect from now on; they are served after `start()`.
   *
   * @param inherited listening sockets that a supervisor has opened, by file descriptor, for the plans in their order.
   * @throws the system's error; nothing is left open then.
   */
  async open(plans: readonly TunnelPlan[], inherited: readonly number[] = []): Promise<void> {
    try {
      for (const [index, plan] of plans.entries()) {
        this.#gates.set(plan.name, { plan, listener: await this.#listen(plan, inherited[index]) });
      }
    } catch (error) {
      for (const { listener } of this.#gates.values()) listener.close();
      this.#gates.clear();
      throw error;
    }
  }

  /** Begins to serve. */
  start(): void {
    for (const { plan } of this.#gates.values()) this.#backend.apply(plan);
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const [tunnel, socket] of early) this.#backend.accept(tunnel, socket);
  }

  /**
   * Puts other plans in force: new tunnels are opened, those that are gone are drained, the others go on with what is
   * new for connections to come.
   *
   * @throws the system's error if a new address can't be bound; nothing has changed then.
   */
  async change(plans: readonly TunnelPlan[]): Promise<void> {
    const opened: Listener[] = [];
    const next = new Map<string | undefined, Gate>();
    try {
      for (const plan of plans) {
        const current = this.#gates.get(plan.name);
        if (current !== undefined && samePlace(current.plan, plan)) {
          next.set(plan.name, { plan, listener: current.listener });
        } else {
          const listener = await this.#listen(plan);
          opened.push(listener);
          next.set(plan.name, { plan, listener });
        }
      }
    } catch (error) {
      for (const listener of opened) listener.close();
      throw error;
    }
    const previous = [...this.#gates];
    this.#gates.clear();
    for (const [name, gate] of next) this.#gates.set(name, gate);
    for (const [name, { plan, listener }] of previous) void this.#retire(name, plan, listener);
    for (const { plan } of next.values()) this.#backend.apply(plan);
  }

  /** Stops listening; resolves when no connection is left. */
  async drain(): Promise<void> {
    await Promise.all(this.listeners.map((listener) => listener.drain()));
    for (const [, socket] of this.#early ?? []) socket.destroy();
    await Promise.all([...this.#gates.keys()].map((name) => this.#backend.drain(name)));
  }

  /** Ends everything now. */
  destroy(): void {
    for (const { listener } of this.#gates.values()) listener.close();
    for (const [, socket] of this.#early ?? []) socket.destroy();
    this.#backend.destroy();
  }

  /** Ends what is left of a plan that is not in force any more. */
  async #retire(name: string | undefined, { mode }: TunnelPlan, listener: Listener): Promise<void> {
    const successor = this.#gates.get(name);
    if (successor !== undefined && successor.plan.mode !== mode) void this.#backend.drain(name);
    if (successor?.listener === listener) return;
    await listener.drain();
    if (!this.#gates.has(name)) await this.#backend.drain(name);
  }

  async #listen(plan: TunnelPlan, inherited?: number): Promise<Listener> {
    const listener = new Listener(
      (socket) => {
        if (this.#early !== undefined) this.#early.push([plan.name, socket]);
        else this.#backend.accept(plan.name, socket);
      },
      (error) => this.#log.warn(`Error accepting a connection: ${error.message}`),
    );
    if (inherited !== undefined) {
      await listener.inherit(inherited);
      return listener;
    }
    const { source, socketMode, socketOwner } = plan;
    const owner = socketOwner === undefined ? undefined : ownerIds(socketOwner);
    await listener.listen(source, socketMode);
    if (source.kind === "unix" && owner !== undefined) chownSync(source.path, owner.uid, owner.gid);
    return listener;
  }
}

/** True if both plans listen at the same address, with the same permissions. */
function samePlace(a: TunnelPlan, b: TunnelPlan): boolean {
  const place = ({ source, socketMode, socketOwner }: TunnelPlan) =>
    JSON.stringify([source, socketMode, socketOwner]);
  return place(a) === place(b);
}
