/**
 * A listening socket before anybody accepts from it: bound while the process may still bind it, sent to the processes
 * that accept.
 *
 * `server.listen()` binds and accepts in one step. `net._createServerHandle`, which `node:cluster` uses for the same
 * purpose, only binds. Node does not document it, so `canBindOnly` says whether this version has it; without it a
 * process binds when it begins to accept, and there can be no workers.
 */
import net from "node:net";
import { getSystemErrorName } from "node:util";
import type { ResolvedAddress } from "./address.ts";
import { bindSocketFile, removeSocketFile, type SocketFileOptions } from "./socket-file.ts";

/** Node's handle of a socket: `server.listen()` and `subprocess.send()` take it. */
export interface SocketHandle {
  readonly fd: number;
  /** Undefined for a UNIX socket. */
  getsockname?(address: object): number;
  close(): void;
}

type CreateServerHandle = (
  address: string | null,
  port: number | null,
  addressType: number | null,
  fd?: number,
) => SocketHandle | number;

const createServerHandle = (net as unknown as { _createServerHandle?: CreateServerHandle })
  ._createServerHandle;

/** True if this version of Node can bind a socket without accepting from it. */
export const canBindOnly = typeof createServerHandle === "function";

/** Stands for the address family of a UNIX socket, and for its port. */
const UNIX = -1;

/** A bound socket, to be closed by its owner. */
export class BoundSocket {
  readonly handle: SocketHandle;
  readonly #path: string | undefined;

  private constructor(handle: SocketHandle, path?: string) {
    this.handle = handle;
    this.#path = path;
  }

  /**
   * Binds an address. The file of a UNIX socket that no process uses any more is replaced.
   *
   * @param file of a UNIX socket.
   * @throws the system's error, with `code` EADDRINUSE, EACCES, ENOENT and so on, or UntrustedPathError.
   */
  static async bind(address: ResolvedAddress, file: SocketFileOptions = {}): Promise<BoundSocket> {
    if (address.kind === "tcp") return new BoundSocket(create(address.host, address.port, address.family));
    const { path } = address;
    const opened: SocketHandle[] = [];
    try {
      const handle = await bindSocketFile(path, file, () => {
        const created = create(path, UNIX, UNIX);
        opened.push(created);
        return created;
      });
      return new BoundSocket(handle, path);
    } catch (error) {
      for (const handle of opened) handle.close();
      throw error;
    }
  }

  /** Takes a socket that another process has bound; `fd` is its file descriptor in this process. */
  static inherit(fd: number): BoundSocket {
    return new BoundSocket(create(null, null, null, fd));
  }

  /** Takes the copy of a socket that another process has bound and sent. */
  static receive(handle: SocketHandle): BoundSocket {
    return new BoundSocket(handle);
  }

  /** Closes this process's copy, and removes the file of a UNIX socket. */
  close(): void {
    this.removeFile();
    this.handle.close();
  }

  /** Removes the file of a UNIX socket, for a socket whose descriptor a server in this process has taken over. */
  removeFile(): void {
    if (this.#path !== undefined) removeSocketFile(this.#path);
  }
}

function create(
  address: string | null,
  port: number | null,
  family: number | null,
  fd?: number,
): SocketHandle {
  const handle = createServerHandle!(address, port, family, fd);
  if (typeof handle === "number") throw systemError(handle);
  // libuv keeps a bind's EADDRINUSE back until somebody listens, or asks for the address.
  const error = handle.getsockname?.({}) ?? 0;
  if (error !== 0) {
    handle.close();
    throw systemError(error);
  }
  return handle;
}

function systemError(errno: number): NodeJS.ErrnoException {
  const code = getSystemErrorName(errno);
  return Object.assign(new Error(`bind ${code}`), { code, errno, syscall: "bind" });
}
