/** The files of UNIX sockets: their permissions when they appear, and what is left of processes that have ended. */
import { readFileSync, unlinkSync } from "node:fs";
import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";

/**
 * Binds a UNIX socket. A file that a process has left there is removed first.
 *
 * @throws what `bind` throws; ENOENT for a missing directory.
 */
export async function replaceStaleSocket<Result>(path: string, bind: () => Promise<Result>): Promise<Result> {
  try {
    return await bind();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EADDRINUSE" && (await isStale(path))) {
      await unlink(path);
      return bind();
    }
    // libuv reports a missing directory as EACCES.
    if (code === "EACCES") await lstat(dirname(path));
    throw error;
  }
}

/** Calls `create`, which creates a file at once, with the umask that gives it these permissions. */
export function withUmask<Result>(mode: number | undefined, create: () => Result): Result {
  if (mode === undefined) return create();
  const umask = process.umask(0o777 & ~mode);
  try {
    return create();
  } finally {
    process.umask(umask);
  }
}

/** Removes a socket's file if it is still there. */
export function removeSocketFile(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is gone already, or no longer ours to remove.
  }
}

/** True if the path is a socket that no process uses any more. */
export async function isStale(path: string): Promise<boolean> {
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
