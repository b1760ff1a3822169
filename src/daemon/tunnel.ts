/** A tunnel of a running daemon: its listening socket, and the servers of the connections that it accepts. */

import type { TunnelPlan } from "../config/plan.ts";
import { BoundSocket, canBindOnly } from "../net/bound-socket.ts";
import { Listener } from "../net/listener.ts";
import { changeSocketFile, type SocketFileOptions } from "../net/socket-file.ts";
import { ownerIds } from "./process/privileges.ts";
import { type Surroundings, serverOptions } from "./tunnel-options.ts";
import { TunnelServer } from "./tunnel-server.ts";

/** A tunnel whose address is bound. */
export interface Tunnel {
  /**
   * Serves connections as planned, or those to come as the new plan says. The plan's address is always the tunnel's.
   *
   * @throws the system's error if another process listens on the address by now, or if the permissions of a UNIX socket
   * can't be changed.
   */
  serve(plan: TunnelPlan): Promise<void>;
  /** Stops listening; resolves when the last connection has ended. */
  drain(): Promise<void>;
  /** Closes the listening socket and all connections now. */
  destroy(): void;
  /** True if the target can be reached; undefined if nobody answered. */
  reachable(): Promise<boolean | undefined>;
  /** How many connections are open; those of a worker that does not respond are not counted. */
  countConnections(): Promise<number>;
}

/** Makes tunnels: served by this process, or by workers. */
export interface TunnelFactory {
  /**
   * Binds a tunnel's address, without serving anybody yet.
   *
   * @param inherited descriptor of a listening socket that the service manager has opened for it.
   * @throws the system's error.
   */
  open(plan: TunnelPlan, inherited?: number): Promise<Tunnel>;
}

/**
 * Binds the address of a plan.
 *
 * @returns undefined if this version of Node can bind it only when connections are accepted.
 * @throws the system's error, or PrivilegeError if there is no such owner.
 */
export async function bindSource(plan: TunnelPlan, inherited?: number): Promise<BoundSocket | undefined> {
  if (!canBindOnly) return undefined;
  if (inherited !== undefined) return BoundSocket.inherit(inherited);
  return BoundSocket.bind(plan.source, socketFile(plan));
}

/** @throws PrivilegeError if there is no such owner. */
function socketFile({ socketMode, socketOwner }: TunnelPlan): SocketFileOptions {
  return { mode: socketMode, owner: socketOwner === undefined ? undefined : ownerIds(socketOwner) };
}

/**
 * Gives the file of a UNIX source the permissions and the owner that have changed.
 *
 * @throws the system's error, UntrustedPathError, or PrivilegeError if there is no such owner.
 */
export function applyPermissions(plan: TunnelPlan, previous: TunnelPlan): void {
  if (plan.source.kind !== "unix") return;
  const { socketMode, socketOwner } = plan;
  changeSocketFile(
    plan.source.path,
    socketFile({
      ...plan,
      socketMode: socketMode === previous.socketMode ? undefined : socketMode,
      socketOwner: socketOwner === previous.socketOwner ? undefined : socketOwner,
    }),
  );
}

/** A tunnel that this process serves. */
export class LocalTunnel implements Tunnel {
  readonly #surroundings: Surroundings;
  readonly #listener: Listener;
  readonly #socket: BoundSocket | undefined;
  /** Undefined before the first plan; the listener has taken over the socket since. */
  #server: TunnelServer | undefined;
  /** Servers of the other direction, which a reload has replaced. */
  readonly #replaced = new Map<TunnelServer, Promise<void>>();

  constructor(surroundings: Surroundings, socket: BoundSocket | undefined) {
    this.#surroundings = surroundings;
    this.#socket = socket;
    this.#listener = new Listener(
      (accepted) => this.#server?.accept(accepted),
      (error) => surroundings.log.warn(`Error accepting a connection: ${error.message}`),
    );
  }

  async serve(plan: TunnelPlan): Promise<void> {
    const server = this.#server;
    const options = serverOptions(plan, this.#surroundings);
    if (server !== undefined && server.options.mode === plan.mode) {
      server.reconfigure(options);
      return;
    }
    this.#server = new TunnelServer(options);
    if (server !== undefined) {
      this.#replaced.set(
        server,
        server.drain().then(() => void this.#replaced.delete(server)),
      );
      return;
    }
    if (this.#socket === undefined) await this.#listener.listen(plan.source, socketFile(plan));
    else await this.#listener.listenOn(this.#socket.handle);
  }

  async drain(): Promise<void> {
    if (this.#server === undefined) {
      this.#socket?.close();
      return;
    }
    this.#socket?.removeFile();
    await this.#listener.drain();
    await Promise.all([this.#server.drain(), ...this.#replaced.values()]);
  }

  destroy(): void {
    if (this.#server === undefined) {
      this.#socket?.close();
      return;
    }
    this.#socket?.removeFile();
    this.#listener.close();
    for (const server of [this.#server, ...this.#replaced.keys()]) server.destroy();
  }

  async reachable(): Promise<boolean | undefined> {
    return this.#server?.reachable();
  }

  async countConnections(): Promise<number> {
    let count = this.#server?.connections ?? 0;
    for (const server of this.#replaced.keys()) count += server.connections;
    return count;
  }
}

/** Has this process serve the tunnels. */
export function localTunnels(surroundings: Surroundings): TunnelFactory {
  return {
    open: async (plan, inherited) => new LocalTunnel(surroundings, await bindSource(plan, inherited)),
  };
}
