/**
 * Sockets that are bound but not yet listening: bound before the process drops its privileges, then sent to the
 * processes that accept.
 *
 * `server.listen()` binds and listens in one step. `net._createServerHandle`, which `node:cluster` uses for the same
 * purpose, only binds. It is undocumented, so `canBindWithoutListening` tries it first; without it, a process binds when
 * it starts to accept, and workers are not available.
 */
import { closeSync } from "node:fs";
import net from "node:net";
import { getSystemErrorName } from "node:util";
import type { ResolvedAddress } from "./address.ts";
import { bindSocketFile, removeSocketFile, type SocketFileOptions } from "./socket-file.ts";

/**
 * Node's internal handle of a socket, as accepted by `server.listen()` and `subprocess.send()`; or an object with the
 * same members for an inherited socket, as accepted by `server.listen()`.
 */
export interface SocketHandle {
  readonly fd: number;
  /** Undefined for a UNIX or inherited socket. */
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

let canBind: boolean | undefined;

/** Returns true if this version of Node can bind a socket without listening on it. */
export function canBindWithoutListening(): boolean {
  canBind ??= bindsProbe();
  return canBind;
}

/** Binds a socket to a port that the system chooses, and closes it. */
function bindsProbe(): boolean {
  try {
    const handle = create("0.0.0.0", 0, 4);
    const hasDescriptor = handle.fd >= 0;
    handle.close();
    return hasDescriptor;
  } catch (error) {
    // A system error is expected if this process may not use IPv4.
    return (error as NodeJS.ErrnoException).syscall === "bind";
  }
}

/** Node's value for the address family, and for the port, of a UNIX socket. */
const UNIX = -1;

/** A bound socket. Its owner closes it. */
export class BoundSocket {
  readonly handle: SocketHandle;
  readonly #path: string | undefined;

  private constructor(handle: SocketHandle, path?: string) {
    this.handle = handle;
    this.#path = path;
  }

  /**
   * Binds an address. Replaces the file of a UNIX socket that no process uses.
   *
   * @param file - mode and owner of a UNIX socket's file.
   * @throws the system error, with `code` EADDRINUSE, EACCES, ENOENT and so on, or UntrustedPathError.
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

  /** Wraps an inherited socket that another process has bound; `fd` is its file descriptor in this process. */
  static inherit(fd: number): BoundSocket {
    const handle = canBindWithoutListening()
      ? create(null, null, null, fd)
      : { fd, close: () => closeSync(fd) };
    return new BoundSocket(handle);
  }

  /** Wraps a socket that another process has bound and sent to this one. */
  static receive(handle: SocketHandle): BoundSocket {
    return new BoundSocket(handle);
  }

  /** Closes this process's copy. Removes the file of a UNIX socket if `bind` created it. */
  close(): void {
    this.removeFile();
    this.handle.close();
  }

  /** Removes the file as `close` does, but leaves the descriptor open: a server in this process now owns it. */
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
  // libuv defers the EADDRINUSE of bind() until listen() or getsockname().
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
