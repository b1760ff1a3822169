/** Accepting connections (Tarsnap's `sock_listener`). */
import { createServer, type Server, type Socket } from "node:net";
import type { ResolvedAddress } from "./address.ts";
import type { SocketHandle } from "./bound-socket.ts";
import { adoptDirect } from "./direct-read.ts";
import { bindSocketFile, type SocketFileOptions } from "./socket-file.ts";

/** As long as the kernel allows; it cuts this to `net.core.somaxconn`. */
const BACKLOG = 65_535;

/** How long a listener that drains may be kept open by clients who go on connecting, ms. */
const LONGEST_DRAIN = 1000;

/**
 * Accepts connections on one address. They come paused: nothing is read from a socket before it is resumed, so that
 * one who has to wait costs no memory.
 */
export class Listener {
  readonly #server: Server;
  #accepted = 0;

  /**
   * @param onSocket called with each accepted socket, which is half-open capable and paused.
   * @param onError called when accepting fails; the listener goes on.
   */
  constructor(onSocket: (socket: Socket) => void, onError: (error: Error) => void) {
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    this.#server.on("connection", (socket) => {
      this.#accepted += 1;
      onSocket(adoptDirect(socket));
    });
    this.#server.on("error", (error) => {
      if (this.#server.listening) onError(error);
    });
  }

  /**
   * Binds an address and accepts from it.
   *
   * @param file of a UNIX socket.
   * @throws the system's error, with `code` EADDRINUSE, EACCES, ENOENT and so on, or UntrustedPathError.
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
   * Accepts from a socket that is bound already.
   *
   * @throws the system's error: EADDRINUSE if another process has begun to listen on the address since it was bound.
   */
  async listenOn(handle: SocketHandle): Promise<void> {
    await this.#start((listening) => this.#server.listen(handle, BACKLOG, listening));
  }

  /** Where the listener is bound: the port that the kernel chose if 0 was asked for. */
  address(): ReturnType<Server["address"]> {
    return this.#server.address();
  }

  /** Stops listening at once. Accepted sockets are not touched. */
  close(): void {
    this.#server.close();
  }

  /**
   * Stops listening as soon as a turn of the event loop has found nobody waiting to be accepted. Whom the kernel has let
   * in but we have not accepted yet would be reset by a close: a load balancer takes that for a failed connection.
   *
   * @returns a promise that resolves when the listener is closed.
   */
  drain(): Promise<void> {
    const end = performance.now() + LONGEST_DRAIN;
    return new Promise((resolve) => {
      const look = (accepted: number) => {
        if (this.#accepted === accepted || performance.now() >= end) {
          this.close();
          resolve();
        } else {
          setImmediate(look, this.#accepted);
        }
      };
      // From one immediate to the next, the loop asks each socket once.
      setImmediate(look, -1);
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
