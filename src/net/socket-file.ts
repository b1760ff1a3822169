/**
 * Manages the file of a listening UNIX socket: creates it with its mode, sets its owner, and ensures that no other file
 * is changed or removed instead.
 */
import { chmodSync, lchownSync, readFileSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { lstat, unlink } from "./async-fs.ts";
import { isRoot, requireTrusted } from "./trusted-path.ts";

/** Mode and owner of a socket's file. Undefined fields keep the system's default. */
export interface SocketFileOptions {
  /** Permission bits. */
  readonly mode?: number | undefined;
  /** User and group ID; -1 leaves an ID unchanged. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
}

/**
 * Binds a UNIX socket. Replaces the file of a socket that no process uses.
 *
 * The file has its mode from creation. Its owner is set afterwards, by name, which is safe only if no other user can
 * replace that name. Root binds only if no other user can replace the directory, since the file is removed by name.
 *
 * @param bind - binds the socket and may listen on it; must create the file before it returns. Called again after a stale
 * file was removed.
 * @throws UntrustedPathError, or the system error. If `bind` succeeded, the caller closes the socket.
 */
export async function bindSocketFile<Result>(
  path: string,
  { mode, owner }: SocketFileOptions,
  bind: () => Result | Promise<Result>,
): Promise<Result> {
  if (isRoot()) requireTrusted(dirname(path));
  const create = () => {
    if (mode === undefined) return bind();
    const umask = process.umask(0o777 & ~mode);
    try {
      return bind();
    } finally {
      process.umask(umask);
    }
  };
  let result: Result;
  try {
    result = await create();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // libuv reports a missing directory as EACCES.
    if (code === "EACCES") await lstat(dirname(path));
    if (code !== "EADDRINUSE" || !(await isStale(path))) throw error;
    await unlink(path);
    result = await create();
  }
  if (owner !== undefined) setOwner(path, owner);
  return result;
}

/** Removes a socket's file if it exists and the process may do so. */
export function removeSocketFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Already removed, or removal is no longer permitted.
  }
}

/**
 * Changes the mode and owner of a listening socket's file.
 *
 * @throws UntrustedPathError if another user could have replaced it, or the system error.
 */
export function changeSocketFile(path: string, { mode, owner }: SocketFileOptions): void {
  if (mode !== undefined) {
    requireTrusted(path);
    chmodSync(path, mode);
  }
  if (owner !== undefined) setOwner(path, owner);
}

function setOwner(path: string, { uid, gid }: { readonly uid: number; readonly gid: number }): void {
  requireTrusted(path);
  lchownSync(path, uid, gid);
}

/** Returns true if the path is a socket that no process uses. */
async function isStale(path: string): Promise<boolean> {
  if (!(await lstat(path)).isSocket()) return false;
  const refused = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(false);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
  return refused && !isBound(path);
}

/** Returns true if a process has bound the path, even if it does not listen yet; false if unknown. */
function isBound(path: string): boolean {
  try {
    return readFileSync("/proc/net/unix", "utf8")
      .split("\n")
      .some((line) => line.endsWith(` ${path}`));
  } catch {
    return false;
  }
}
