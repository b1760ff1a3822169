/** Accepts connections (Tarsnap's `sock_listener`). */
import { createServer, type Server, type Socket } from "node:net";
import type { ResolvedAddress } from "./address.ts";
import type { SocketHandle } from "./bound-socket.ts";
import { rewrapSocket } from "./direct-read.ts";
import { bindSocketFile, type SocketFileOptions } from "./socket-file.ts";

/** Maximum length of the accept queue; the kernel reduces it to `net.core.somaxconn`. */
const BACKLOG = 65_535;

/** Maximum time that `drain` keeps the listener open while clients continue to connect, in ms. */
const MAX_DRAIN_MS = 3000;
/** Maximum duration of the event-loop iteration in which `drain` closes the listener, in ms. */
const MAX_ITERATION_MS = 0.1;
/** Maximum time that `drain` waits for such an iteration, in ms. */
const MAX_SHORT_ITERATION_WAIT_MS = 100;

/**
 * Accepts connections on one address. Accepted sockets are paused and unread until resumed, so that a queued connection
 * uses no read buffer.
 */
export class Listener {
  readonly #server: Server;
  #accepted = 0;

  /**
   * @param onSocket - called with each accepted socket, paused and with `allowHalfOpen`.
   * @param onError - called if accepting fails; the listener stays open.
   */
  constructor(onSocket: (socket: Socket) => void, onError: (error: Error) => void) {
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    this.#server.on("connection", (socket) => {
      this.#accepted += 1;
      onSocket(rewrapSocket(socket));
    });
    this.#server.on("error", (error) => {
      if (this.#server.listening) onError(error);
    });
  }

  /**
   * Binds an address and listens on it.
   *
   * @param file - mode and owner of a UNIX socket's file.
   * @throws the system error, with `code` EADDRINUSE, EACCES, ENOENT and so on, or UntrustedPathError.
   */
  async listen(address: ResolvedAddress, file: SocketFileOptions = {}): Promise<void> {
    if (address.kind === "tcp") {
      const { host, port } = address;
      await this.#start((listening) => this.#server.listen({ host, port, backlog: BACKLOG }, listening));
      return;
    }
    const { path } = address;
    await bindSocketFile(path, file, () =>
      this.#start((listening) => this.#server.listen({ path, backlog: BACKLOG }, listening)),
    );
  }

  /**
   * Listens on a socket that is already bound.
   *
   * @throws the system error: EADDRINUSE if another process has started to listen on the address since it was bound.
   */
  async listenOn(handle: SocketHandle): Promise<void> {
    await this.#start((listening) => this.#server.listen(handle, BACKLOG, listening));
  }

  /** Returns the bound address, with the port that the kernel chose if 0 was requested. */
  address(): ReturnType<Server["address"]> {
    return this.#server.address();
  }

  /** Stops listening immediately. Does not affect accepted sockets. */
  close(): void {
    this.#server.close();
  }

  /**
   * Stops listening once an event-loop iteration accepts no connection, or after three seconds. `close` would reset the
   * connections in the accept queue, which a load balancer counts as failures.
   *
   * It also resets the connections that arrive after the iteration has polled the socket. So the listener is closed in
   * an iteration that did little else, unless there is none within 100 ms.
   *
   * @returns a promise that resolves when the listener is closed.
   */
  drain(): Promise<void> {
    const start = performance.now();
    return new Promise((resolve) => {
      const poll = (accepted: number, previous: number) => {
        const now = performance.now();
        const isQueueEmpty = this.#accepted === accepted;
        const isShort = now - previous <= MAX_ITERATION_MS || previous - start >= MAX_SHORT_ITERATION_WAIT_MS;
        if ((isQueueEmpty && isShort) || now - start >= MAX_DRAIN_MS) {
          this.close();
          resolve();
        } else {
          setImmediate(poll, this.#accepted, now);
        }
      };
      // The event loop polls each socket once between two immediates.
      setImmediate(poll, -1, start);
    });
  }

  #start(listen: (listening: () => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      listen(() => {
        this.#server.off("error", reject);
        resolve();
      });
    });
  }
}
