/** Who serves the sockets that a daemon's listeners accept: this process, or others that it has started. */
import type { Socket } from "node:net";
import { type Surroundings, serverOptions, type TunnelPlan } from "./plan.ts";
import { TunnelServer } from "./server.ts";

/** Serves the accepted sockets of tunnels, here or in other processes. */
export interface Backend {
  /** Takes a tunnel's plan, a new one or a changed one. */
  apply(plan: TunnelPlan): void;
  /** Serves a socket that a tunnel has accepted. */
  accept(tunnel: string | undefined, socket: Socket): void;
  /** Lets the connections of a tunnel run to their end, whose listener is closed. */
  drain(tunnel: string | undefined): Promise<void>;
  /** Says that no tunnel and no socket will come any more, and all that is left is to drain. */
  end(): void;
  /** Ends all connections now, those that are draining too. */
  destroy(): void;
  /** True if every tunnel's target can be reached. */
  reachable(): Promise<boolean>;
}

/** Serves in this process. */
export class LocalBackend implements Backend {
  readonly #servers = new Map<string | undefined, TunnelServer>();
  readonly #draining = new Set<TunnelServer>();
  readonly #surroundings: Surroundings;

  constructor(surroundings: Surroundings) {
    this.#surroundings = surroundings;
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
    if (server === undefined) return;
    this.#servers.delete(tunnel);
    this.#draining.add(server);
    await server.drain();
    this.#draining.delete(server);
  }

  end(): void {}

  destroy(): void {
    for (const server of [...this.#servers.values(), ...this.#draining]) server.destroy();
  }

  async reachable(): Promise<boolean> {
    const answers = await Promise.all([...this.#servers.values()].map((server) => server.reachable()));
    return answers.every(Boolean);
  }
}
