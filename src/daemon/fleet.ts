/** All tunnels of a process: their listening sockets, their servers, and what becomes of them when the plans change. */
import { chownSync } from "node:fs";
import type { Socket } from "node:net";
import { Listener } from "../tunnel/listener.ts";
import { Slots } from "../tunnel/slots.ts";
import type { Log } from "./log.ts";
import type { Observer } from "./observer.ts";
import { type Surroundings, serverOptions, type TunnelPlan } from "./plan.ts";
import { ownerIds } from "./privileges.ts";
import { TunnelServer } from "./server.ts";

/** Serves the accepted sockets of tunnels, here or in other processes. */
export interface Backend {
  /** Takes a tunnel's plan, a new one or a changed one. */
  apply(plan: TunnelPlan): void;
  /** Serves a socket that a tunnel has accepted. */
  accept(tunnel: string | undefined, socket: Socket): void;
  /** Lets the connections of a tunnel run to their end, whose listener is closed. */
  drain(tunnel: string | undefined): Promise<void>;
  /** Ends all connections now. */
  destroy(): void;
  /** Looks all targets up again. */
  refresh(): Promise<void>;
  /** True if every tunnel's target could be reached when it was last tried. */
  readonly reachable: boolean | Promise<boolean>;
}

/** Serves in this process. */
export class LocalBackend implements Backend {
  readonly #servers = new Map<string | undefined, TunnelServer>();
  readonly #slots = new Map<string, Slots>();
  readonly #surroundings: Surroundings;

  constructor(log: Log, observer: Observer | undefined, slots?: Surroundings["slots"]) {
    this.#surroundings = { log, observer, slots: slots ?? this.#localSlots.bind(this, log) };
  }

  apply(plan: TunnelPlan): void {
    const options = serverOptions(plan, this.#surroundings);
    const server = this.#servers.get(plan.name);
    if (server === undefined) this.#servers.set(plan.name, new TunnelServer(options));
    else server.reconfigure(options);
  }

  accept(tunnel: string | undefined, socket: Socket): void {
    const server = this.#servers.get(tunnel);
    if (server === undefined) socket.destroy();
    else server.accept(socket);
  }

  async drain(tunnel: string | undefined): Promise<void> {
    const server = this.#servers.get(tunnel);
    this.#servers.delete(tunnel);
    await server?.drain();
  }

  destroy(): void {
    for (const server of this.#servers.values()) server.destroy();
  }

  async refresh(): Promise<void> {
    await Promise.all([...this.#servers.values()].map((server) => server.options.targets.refresh()));
  }

  get reachable(): boolean {
    return [...this.#servers.values()].every((server) => server.options.targets.reachable);
  }

  /** A limit keeps its count over changes of the plans. */
  #localSlots(log: Log, ...[plan, key, limit]: Parameters<Surroundings["slots"]>): Slots {
    const id = slotsId(plan.name, key?.name);
    const known = this.#slots.get(id);
    if (known !== undefined) {
      known.setLimit(limit);
      return known;
    }
    const slots = new Slots(limit, () => warnOfLimit(log, limit, plan.name, key?.name));
    this.#slots.set(id, slots);
    return slots;
  }
}

/** Names a limit: a tunnel's own, or that of one of its keys. */
export function slotsId(tunnel: string | undefined, key: string | undefined): string {
  return JSON.stringify([tunnel ?? null, key ?? null]);
}

/** Says that a limit is reached, in the original's words where it has some. */
export function warnOfLimit(
  log: Log,
  limit: number,
  tunnel: string | undefined,
  key: string | undefined,
): void {
  const where = `${tunnel === undefined ? "" : `${tunnel}: `}`;
  const whose = key === undefined ? "" : ` for key ${key}`;
  log.warn(`${where}Maximum number of connections (${limit})${whose} reached`);
}

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
    for (const [name, { plan, listener }] of this.#gates) {
      const successor = next.get(name);
      if (successor?.listener !== listener) listener.close();
      if (successor === undefined || successor.plan.mode !== plan.mode) void this.#backend.drain(name);
    }
    this.#gates.clear();
    for (const [name, gate] of next) this.#gates.set(name, gate);
    for (const { plan } of next.values()) this.#backend.apply(plan);
  }

  /** Stops listening at once; resolves when no connection is left. */
  async drain(): Promise<void> {
    for (const { listener } of this.#gates.values()) listener.close();
    for (const [, socket] of this.#early ?? []) socket.destroy();
    await Promise.all([...this.#gates.keys()].map((name) => this.#backend.drain(name)));
  }

  /** Ends everything now. */
  destroy(): void {
    for (const { listener } of this.#gates.values()) listener.close();
    for (const [, socket] of this.#early ?? []) socket.destroy();
    this.#backend.destroy();
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
    await listener.listen(source, socketMode);
    if (source.kind === "unix" && socketOwner !== undefined) {
      const { uid, gid } = ownerIds(socketOwner);
      chownSync(source.path, uid, gid);
    }
    return listener;
  }
}

/** True if both plans listen at the same address, with the same permissions. */
function samePlace(a: TunnelPlan, b: TunnelPlan): boolean {
  const place = ({ source, socketMode, socketOwner }: TunnelPlan) =>
    JSON.stringify([source, socketMode, socketOwner]);
  return place(a) === place(b);
}
