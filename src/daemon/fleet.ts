/** All tunnels of a process: their listening sockets, their servers, and what becomes of them when the plans change. */
import { chmodSync, chownSync } from "node:fs";
import type { Socket } from "node:net";
import { SpipedError } from "../protocol/errors.ts";
import { Listener } from "../tunnel/listener.ts";
import { systemErrorText } from "../tunnel/system-error.ts";
import type { Backend } from "./backend.ts";
import type { Log } from "./log.ts";
import type { TunnelPlan } from "./plan.ts";
import { ownerIds } from "./privileges.ts";

/** A listening socket and the tunnel that its clients are for, which a reload may change. */
interface Gate {
  plan: TunnelPlan;
  readonly listener: Listener;
}

/** A tunnel could not be opened; `cause` is the system's error. */
export class BindError extends SpipedError {
  readonly plan: TunnelPlan;

  constructor(plan: TunnelPlan, cause: unknown) {
    super("ERR_SPIPED_BIND", systemErrorText(cause), { cause });
    this.plan = plan;
  }
}

/** The tunnels of a daemon. */
export class Fleet {
  readonly #backend: Backend;
  readonly #log: Log;
  #gates: Gate[] = [];
  /** What is left of tunnels that a reload has ended, until it has come to its end. */
  readonly #retiring = new Set<Promise<void>>();
  /** Sockets that were accepted before `start()`. */
  #early: [Gate, Socket][] | undefined = [];
  #draining = false;

  constructor(backend: Backend, log: Log) {
    this.#backend = backend;
    this.#log = log;
  }

  /**
   * Binds and listens for all plans. Clients can connect from now on; they are served after `start()`.
   *
   * @param inherited listening sockets that a supervisor has opened, by file descriptor, for the plans in their order.
   * @throws BindError; nothing is left open then.
   */
  async open(plans: readonly TunnelPlan[], inherited: readonly number[] = []): Promise<void> {
    try {
      for (const [index, plan] of plans.entries()) {
        this.#gates.push(await this.#listen(plan, inherited[index]));
      }
    } catch (error) {
      for (const { listener } of this.#gates.splice(0)) listener.close();
      throw error;
    }
  }

  /** Begins to serve. */
  start(): void {
    for (const { plan } of this.#gates) this.#backend.apply(plan);
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const [gate, socket] of early) this.#backend.accept(gate.plan.name, socket);
  }

  /**
   * Puts other plans in force: new addresses are opened, those that are gone are closed and their tunnels drained, the
   * others go on with what is new for connections to come, under another name too. While the fleet drains, nothing
   * changes any more.
   *
   * @throws BindError if a new address can't be opened; nothing has changed then.
   */
  async change(plans: readonly TunnelPlan[]): Promise<void> {
    const opened: Gate[] = [];
    const next = new Map<TunnelPlan, Gate>();
    const closeOpened = () => {
      for (const { listener } of opened) listener.close();
    };
    try {
      for (const plan of plans) {
        const known = this.#gates.find((gate) => sameAddress(gate.plan, plan));
        if (known === undefined) {
          const gate = await this.#listen(plan);
          opened.push(gate);
          next.set(plan, gate);
        } else {
          applyPermissions(plan, known.plan);
          next.set(plan, known);
        }
      }
    } catch (error) {
      closeOpened();
      throw error;
    }
    if (this.#draining) {
      closeOpened();
      return;
    }
    const previous = this.#gates.map(({ plan, listener }) => ({ plan, listener }));
    this.#gates = [...next.values()];
    for (const [plan, gate] of next) gate.plan = plan;
    for (const { plan, listener } of previous) this.#retire(plan, listener);
    for (const plan of plans) this.#backend.apply(plan);
  }

  /** Stops listening; resolves when no connection is left, of tunnels that a reload has ended either. */
  async drain(): Promise<void> {
    this.#draining = true;
    this.#backend.end();
    await Promise.all(this.#gates.map(({ listener }) => listener.drain()));
    for (const [, socket] of this.#early ?? []) socket.destroy();
    await Promise.all([...this.#gates.map(({ plan }) => this.#backend.drain(plan.name)), ...this.#retiring]);
  }

  /** Ends everything now. */
  destroy(): void {
    for (const { listener } of this.#gates) listener.close();
    for (const [, socket] of this.#early ?? []) socket.destroy();
    this.#backend.destroy();
  }

  /** Ends what is left of a plan that is not in force any more. */
  #retire({ name, mode }: TunnelPlan, listener: Listener): void {
    const inForce = () => this.#gates.find(({ plan }) => plan.name === name);
    const drain = () => this.#backend.drain(name);
    const ends: Promise<void>[] = [];
    const successor = inForce();
    // Connections of the other mode are none of the successor's.
    if (successor !== undefined && successor.plan.mode !== mode) ends.push(drain());
    if (!this.#gates.some((gate) => gate.listener === listener)) {
      ends.push(listener.drain().then(() => (inForce() === undefined ? drain() : undefined)));
    } else if (successor === undefined) {
      ends.push(drain());
    }
    const retiring = Promise.all(ends).then(() => {});
    this.#retiring.add(retiring);
    void retiring.then(() => this.#retiring.delete(retiring));
  }

  async #listen(plan: TunnelPlan, inherited?: number): Promise<Gate> {
    const listener = new Listener(
      (socket) => {
        if (this.#early !== undefined) this.#early.push([gate, socket]);
        else this.#backend.accept(gate.plan.name, socket);
      },
      (error) => this.#log.warn(`Error accepting a connection: ${error.message}`),
    );
    const gate: Gate = { plan, listener };
    try {
      if (inherited !== undefined) {
        await listener.inherit(inherited);
        return gate;
      }
      await listener.listen(plan.source, plan.socketMode);
      applyPermissions(plan);
      return gate;
    } catch (error) {
      listener.close();
      throw asBindError(plan, error);
    }
  }
}

function sameAddress(a: TunnelPlan, b: TunnelPlan): boolean {
  return JSON.stringify(a.source) === JSON.stringify(b.source);
}

/** What went wrong with a plan's address, unless it says so itself. */
function asBindError(plan: TunnelPlan, error: unknown): SpipedError {
  return error instanceof SpipedError ? error : new BindError(plan, error);
}

/**
 * Gives the file of a UNIX source its owner, and its permissions if they have changed; a new one has them from the moment
 * that it exists.
 *
 * @throws BindError, or PrivilegeError if there is no such owner.
 */
function applyPermissions(plan: TunnelPlan, previous?: TunnelPlan): void {
  const { source, socketMode, socketOwner } = plan;
  if (source.kind !== "unix") return;
  try {
    if (socketOwner !== undefined && socketOwner !== previous?.socketOwner) {
      const { uid, gid } = ownerIds(socketOwner);
      chownSync(source.path, uid, gid);
    }
    if (previous !== undefined && socketMode !== undefined && socketMode !== previous.socketMode) {
      chmodSync(source.path, socketMode);
    }
  } catch (error) {
    throw asBindError(plan, error);
  }
}
