/**
 * Checks that a path is trusted: only root and this process's user can change what any of its components refers to.
 *
 * A user with write permission on a directory can replace its entries, for example with a symbolic link; if the sticky
 * bit is set, only the owners of the directory and of the entry can. If another user can replace part of a path, a
 * privileged process that operates on the path can be made to operate on any file of that user's choice.
 */
import { lstatSync, readlinkSync, type Stats, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { SpipedError } from "../errors.ts";

const WRITABLE_BY_GROUP = 0o020;
const WRITABLE_BY_ALL = 0o002;
const STICKY = 0o1000;

/** Maximum number of symbolic links in one path, as in Linux. */
const MAX_LINKS = 40;

/** A path or file that other users can change. The message contains the reason. */
class UntrustedPathError extends SpipedError {
  constructor(message: string) {
    super("ERR_SPIPED_UNTRUSTED_PATH", message);
  }
}

/** Returns true if the process runs as root. */
export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/**
 * Checks each component of a path. The last one need not exist.
 *
 * @param path - absolute, or relative to the current directory, whose own path is not checked.
 * @throws UntrustedPathError; the system error if a component before the last one does not exist.
 */
export function requireTrusted(path: string): void {
  let directory = isAbsolute(path) ? "/" : ".";
  let links = 0;
  const names = components(path);
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    const entry = join(directory, name);
    const isLast = names.length === 0;
    const status = name === ".." ? undefined : lstatSync(entry, { throwIfNoEntry: !isLast });
    if (name !== "..") {
      const reason = reasonReplaceable(directory, status);
      if (reason !== undefined) {
        throw new UntrustedPathError(
          `other users can replace ${entry}: ${reason}; use a directory that only root can change`,
        );
      }
    }
    if (status?.isSymbolicLink()) {
      links += 1;
      if (links > MAX_LINKS) throw Object.assign(new Error(`ELOOP: ${path}`), { code: "ELOOP" });
      const target = readlinkSync(entry);
      if (isAbsolute(target)) directory = "/";
      names.unshift(...components(target));
    } else {
      directory = entry;
    }
  }
}

/**
 * Checks that only root and this process's user can replace a file or write to it.
 *
 * @throws UntrustedPathError, or the system error.
 */
export function requireTrustedFile(path: string): void {
  requireTrusted(path);
  const reason = reasonWritable(path, statSync(path));
  if (reason !== undefined) throw new UntrustedPathError(`other users can change it: ${reason}`);
}

const components = (path: string) => path.split("/").filter((name) => name !== "" && name !== ".");

/** Returns the reason why other users can replace a directory entry; undefined if they cannot. */
function reasonReplaceable(directory: string, entry: Stats | undefined): string | undefined {
  const status = statSync(directory);
  const reason = reasonWritable(directory, status);
  if (reason === undefined || !isTrusted(status.uid) || (status.mode & STICKY) === 0) return reason;
  return entry === undefined || isTrusted(entry.uid) ? undefined : `it is owned by user ${entry.uid}`;
}

function reasonWritable(path: string, { uid, mode }: Stats): string | undefined {
  if (!isTrusted(uid)) return `${path} is owned by user ${uid}`;
  if ((mode & WRITABLE_BY_ALL) !== 0) return `${path} is world-writable`;
  if ((mode & WRITABLE_BY_GROUP) !== 0) return `${path} is group-writable`;
  return undefined;
}

/** Returns true for root, this process's user and the owner of / (the host's root, if the user namespace omits it). */
function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.() || uid === statSync("/").uid;
}
