/** A tunnel of a running daemon: its listening socket and the servers for its accepted connections. */
import type { TunnelPlan } from "../config/plan.ts";
import type { TunnelSettings } from "../config/tunnel-settings.ts";
import { BoundSocket, canBindWithoutListening } from "../net/bound-socket.ts";
import { Listener } from "../net/listener.ts";
import { changeSocketFile, type SocketFileOptions } from "../net/socket-file.ts";
import { ownerIds } from "./process/privileges.ts";
import { serverOptions, type TunnelContext } from "./tunnel-options.ts";
import { TunnelServer } from "./tunnel-server.ts";

/** A tunnel whose address is bound. */
export interface Tunnel {
  /**
   * Starts serving connections or, if already serving, applies a new plan to later connections. The plan's source must
   * be the tunnel's.
   *
   * @throws the system's error if another process now listens on the address, or if the permissions of a UNIX socket
   * cannot be changed.
   */
  serve(plan: TunnelPlan): Promise<void>;
  /** Stops listening; resolves when the last connection has closed. */
  drain(): Promise<void>;
  /** Closes the listening socket and all connections now. */
  destroy(): void;
  /** Resolves with whether a tunnel's target is reachable; undefined if no process has answered. */
  isReachable(): Promise<boolean | undefined>;
  /** Resolves with the number of open connections, except those of workers that do not respond. */
  countConnections(): Promise<number>;
}

/** Creates tunnels that are served by this process or by workers. */
export interface TunnelFactory {
  /**
   * Binds a tunnel's address without accepting connections yet.
   *
   * @param inherited - descriptor of a listening socket opened by the service manager.
   * @throws the system's error.
   */
  open(plan: TunnelPlan, inherited?: number): Promise<Tunnel>;
}

/**
 * Binds the address of a plan, or uses the inherited socket.
 *
 * @returns undefined if this version of Node cannot bind without listening.
 * @throws the system's error, or PrivilegeError if the socket's owner does not exist.
 */
export async function bindSource(plan: TunnelPlan, inherited?: number): Promise<BoundSocket | undefined> {
  if (inherited !== undefined) return BoundSocket.inherit(inherited);
  if (!canBindWithoutListening()) return undefined;
  return BoundSocket.bind(plan.source, socketFile(plan.settings));
}

/** @throws PrivilegeError if the socket's owner does not exist. */
function socketFile({ socketMode, socketOwner }: TunnelSettings): SocketFileOptions {
  return { mode: socketMode, owner: socketOwner === undefined ? undefined : ownerIds(socketOwner) };
}

/**
 * Applies changes of the permissions and the owner to the file of a UNIX source.
 *
 * @throws the system's error, UntrustedPathError, or PrivilegeError if the socket's owner does not exist.
 */
export function applyPermissions(plan: TunnelPlan, previous: TunnelPlan): void {
  if (plan.source.kind !== "unix") return;
  const { mode, owner } = socketFile(plan.settings);
  const { socketMode, socketOwner } = previous.settings;
  changeSocketFile(plan.source.path, {
    mode: plan.settings.socketMode === socketMode ? undefined : mode,
    owner: plan.settings.socketOwner === socketOwner ? undefined : owner,
  });
}

/** A tunnel served by this process. */
export class LocalTunnel implements Tunnel {
  readonly #context: TunnelContext;
  readonly #listener: Listener;
  readonly #socket: BoundSocket | undefined;
  /** Undefined until `serve()` is called; from then on the listener owns the socket. */
  #server: TunnelServer | undefined;
  /** Servers of the other mode that a reload has replaced, until they have drained. */
  readonly #replaced = new Map<TunnelServer, Promise<void>>();

  constructor(context: TunnelContext, socket: BoundSocket | undefined) {
    this.#context = context;
    this.#socket = socket;
    this.#listener = new Listener(
      (accepted) => this.#server?.accept(accepted),
      (error) => context.log.warn(`Error accepting a connection: ${error.message}`),
    );
  }

  async serve(plan: TunnelPlan): Promise<void> {
    const server = this.#server;
    const options = serverOptions(plan, this.#context);
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
    if (this.#socket === undefined) await this.#listener.listen(plan.source, socketFile(plan.settings));
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

  async isReachable(): Promise<boolean | undefined> {
    return this.#server?.isReachable();
  }

  async countConnections(): Promise<number> {
    let count = this.#server?.connections ?? 0;
    for (const server of this.#replaced.keys()) count += server.connections;
    return count;
  }
}

/** Returns a factory for tunnels served by this process. */
export function localTunnels(context: TunnelContext): TunnelFactory {
  return {
    open: async (plan, inherited) => new LocalTunnel(context, await bindSource(plan, inherited)),
  };
}
