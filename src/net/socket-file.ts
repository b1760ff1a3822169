/**
 * The file of a listening UNIX socket: created with its permissions, given to its owner, and nothing else ever changed
 * or removed in its stead.
 */
import { chmodSync, lchownSync, readFileSync, unlinkSync } from "node:fs";
import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";
import { isRoot, requireTrusted } from "./trusted-path.ts";

/** What a socket's file shall be like; undefined leaves it as the system makes it. */
export interface SocketFileOptions {
  /** Permissions. */
  readonly mode?: number | undefined;
  /** User and group, -1 where it stays as it is. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
}

/**
 * Binds a UNIX socket. The file of a socket that nobody listens on any more is replaced.
 *
 * Permissions are those of the file from its creation on. An owner is set afterwards, by name, so nobody else may be able
 * to replace the name. Root binds only where no other user can replace the directory, since the file is removed by name.
 *
 * @param bind binds and listens; the file must be created during the call. Called again if a file was replaced.
 * @throws UntrustedPathError, or the system's error. If the socket is listening by then, the caller closes it.
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

/** Removes a socket's file if it is still there. */
export function removeSocketFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is gone already, or no longer ours to remove.
  }
}

/**
 * Changes the file of a socket that is listening.
 *
 * @throws UntrustedPathError if somebody else can have replaced it, or the system's error.
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

/** True if the path is a socket that no process uses any more. */
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

/** True if a process has bound the path, whether it listens yet or not; false where the system does not say. */
function isBound(path: string): boolean {
  try {
    return readFileSync("/proc/net/unix", "utf8")
      .split("\n")
      .some((line) => line.endsWith(` ${path}`));
  } catch {
    return false;
  }
}
