/** A tunnel's server and its listener in the process under test, over the simulated network. */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Socket } from "node:net";
import type { ServerOptions } from "../../src/daemon/server-options.ts";
import { TunnelServer } from "../../src/daemon/tunnel-server.ts";
import { createSocket } from "../../src/net/direct-read.ts";
import { Listener } from "../../src/net/listener.ts";
import { Ledger } from "./ledger.ts";
import type { SocketAddress } from "./network.ts";
import { type Host, SimulatedHandle, SimulatedListener } from "./simulated-handle.ts";

/** The options that differ between the servers of a world. */
export type Settings = Omit<ServerOptions, "source" | "openSocket" | "observer">;

/** The port of the client whose connection is being served. */
const clientPort = new AsyncLocalStorage<number>();

/** Port of a client that had left before it was accepted. */
const UNKNOWN_PORT = -1;

export class Server {
  readonly name: string;
  readonly #host: Host;
  readonly #address: SocketAddress;
  readonly #server: TunnelServer;
  readonly #listener: Listener;
  readonly ledger: Ledger;
  /** Number of accepted connections. */
  accepted = 0;
  /** Ports of the clients' connections by the ports from which this server has connected to targets. */
  readonly clientPorts = new Map<number, number>();
  isDraining = false;
  isDrained = false;
  isDestroyed = false;

  constructor(
    name: string,
    host: Host,
    address: SocketAddress,
    settings: Settings,
    onViolation: (message: string) => void,
  ) {
    this.name = name;
    this.#host = host;
    this.#address = address;
    this.ledger = new Ledger(
      name,
      (kind, id, detail) => host.network.trace.record(kind, id, detail),
      onViolation,
    );
    this.#server = new TunnelServer(this.#complete(settings));
    this.#listener = new Listener(
      (socket) => clientPort.run(socket.remotePort ?? UNKNOWN_PORT, () => this.#server.accept(socket)),
      (error) => onViolation(`${name}: ${error.message}`),
    );
    const handle = new SimulatedListener(host, address, () => {
      this.accepted += 1;
    });
    void this.#listener.listenOn(handle);
  }

  get options(): ServerOptions {
    return this.#server.options;
  }

  get connections(): number {
    return this.#server.connections;
  }

  /** @param makeSettings - called if the server still accepts connections. */
  reconfigure(makeSettings: () => Settings): void {
    if (this.isDraining || this.isDestroyed) return;
    this.#server.reconfigure(this.#complete(makeSettings()));
  }

  probe(): void {
    if (!this.isDraining && !this.isDestroyed) void this.#server.isReachable();
  }

  drain(): void {
    if (this.isDraining || this.isDestroyed) return;
    this.isDraining = true;
    void this.#listener
      .drain()
      .then(() => this.#server.drain())
      .then(() => {
        this.isDrained = true;
      });
  }

  destroy(): void {
    if (this.isDestroyed) return;
    this.isDestroyed = true;
    this.#listener.close();
    this.#server.destroy();
  }

  #complete(settings: Settings): ServerOptions {
    return {
      ...settings,
      source: "tcp",
      observer: this.ledger,
      openSocket: (address) => this.#openSocket(address.kind === "tcp" ? address : { host: "", port: 0 }),
    };
  }

  #openSocket({ host, port }: SocketAddress): Socket {
    const handle = new SimulatedHandle(this.#host, this.#address.host, (port) => {
      // A probe has no client.
      const client = clientPort.getStore();
      if (client !== undefined) this.clientPorts.set(port, client);
    });
    const { socket } = createSocket({ handle, pauseOnCreate: true });
    return socket.connect({ host, port, family: 4 });
  }
}
