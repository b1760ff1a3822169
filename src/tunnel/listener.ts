/** A listening socket (Tarsnap's `sock_listener`). */
import { lstat, unlink } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import type { ResolvedAddress } from "./address.ts";
import { watchDescriptors } from "./descriptors.ts";
import { adoptDirect } from "./direct-read.ts";

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
   * @param onError called when accepting fails, or is about to for want of file descriptors; the listener goes on.
   */
  constructor(onSocket: (socket: Socket) => void, onError: (error: Error) => void) {
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    const watch = watchDescriptors(onError);
    this.#server.on("connection", (socket) => {
      this.#accepted += 1;
      watch(socket);
      onSocket(adoptDirect(socket));
    });
    this.#server.on("error", (error) => {
      if (this.#server.listening) onError(error);
    });
  }

  /**
   * Binds and listens. The file of a UNIX socket that nobody listens on any more is replaced.
   *
   * @param mode permissions of a UNIX socket, from the moment it exists; those of the process's umask if absent.
   * @throws the system's error, with `code` EADDRINUSE, EACCES, ENOENT and so on.
   */
  async listen(address: ResolvedAddress, mode?: number): Promise<void> {
    if (address.kind === "tcp") {
      const { host, port } = address;
      await this.#bind({ host, port });
      return;
    }
    try {
      await this.#bind({ path: address.path }, mode);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EADDRINUSE" && (await isStale(address.path))) {
        await unlink(address.path);
        await this.#bind({ path: address.path }, mode);
        return;
      }
      // libuv reports a missing directory as EACCES.
      if (code === "EACCES") await lstat(dirname(address.path));
      throw error;
    }
  }

  /**
   * Takes a socket that is listening already.
   *
   * @param fd its file descriptor.
   */
  async inherit(fd: number): Promise<void> {
    await this.#bind({ fd });
  }

  /** Where the listener is bound: the port that the kernel chose if 0 was asked for. */
  address(): ReturnType<Server["address"]> {
    return this.#server.address();
  }

  /** Stops listening at once; a UNIX socket's file is removed. Accepted sockets are not touched. */
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

  #bind(
    where: { host: string; port: number } | { path: string } | { fd: number },
    mode?: number,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      // The kernel creates the file during the call.
      const umask = mode === undefined ? undefined : process.umask(0o777 & ~mode);
      this.#server.listen({ ...where, backlog: BACKLOG }, () => {
        this.#server.off("error", reject);
        resolve();
      });
      if (umask !== undefined) process.umask(umask);
    });
  }
}

/** True if the path is a socket that refuses connections because its process is gone. */
export async function isStale(path: string): Promise<boolean> {
  if (!(await lstat(path)).isSocket()) return false;
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(false);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
}
