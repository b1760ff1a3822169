/**
 * Whether a path can be trusted: that its every name leads where it leads now, unless root or this process's own user
 * changes it.
 *
 * Who may write to a directory can replace the names in it, by a link to somewhere else among others; in a directory
 * with the sticky bit only the owners of the directory and of what is named can. What a process with privileges does to
 * a path that another user can change in this way, it does to any file of that user's choice.
 */
import { lstatSync, readlinkSync, type Stats, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { SpipedError } from "../errors.ts";

const WRITABLE_BY_GROUP = 0o020;
const WRITABLE_BY_ALL = 0o002;
const STICKY = 0o1000;

/** As many as Linux follows in one path. */
const MAX_LINKS = 40;

/** Other users can change a path. The message says which part of it, and why. */
class UntrustedPathError extends SpipedError {
  constructor(message: string) {
    super("ERR_SPIPED_UNTRUSTED_PATH", message);
  }
}

/** True if this process may do what its user could not. */
export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/**
 * Checks all names on the way to a path, and the last one, which need not exist.
 *
 * @param path absolute, or relative to the current directory, which is taken as it is.
 * @throws UntrustedPathError; the system's error if a name before the last one does not exist.
 */
export function requireTrusted(path: string): void {
  let directory = isAbsolute(path) ? "/" : ".";
  let links = 0;
  const names = split(path);
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    const entry = join(directory, name);
    const isLast = names.length === 0;
    const status = name === ".." ? undefined : lstatSync(entry, { throwIfNoEntry: !isLast });
    if (name !== "..") {
      const reason = whyReplaceable(directory, status);
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
      names.unshift(...split(target));
    } else {
      directory = entry;
    }
  }
}

/**
 * Checks a file: that only root and this process's user can replace it or write to it.
 *
 * @throws UntrustedPathError, or the system's error.
 */
export function requireTrustedFile(path: string): void {
  requireTrusted(path);
  const reason = whyWritable(path, statSync(path));
  if (reason !== undefined) throw new UntrustedPathError(`other users can change it: ${reason}`);
}

const split = (path: string) => path.split("/").filter((name) => name !== "" && name !== ".");

/** Why others can replace an entry of a directory; undefined if they can't. */
function whyReplaceable(directory: string, entry: Stats | undefined): string | undefined {
  const status = statSync(directory);
  const reason = whyWritable(directory, status);
  if (reason === undefined || !isTrusted(status.uid) || (status.mode & STICKY) === 0) return reason;
  return entry === undefined || isTrusted(entry.uid) ? undefined : `it belongs to user ${entry.uid}`;
}

function whyWritable(path: string, { uid, mode }: Stats): string | undefined {
  if (!isTrusted(uid)) return `${path} belongs to user ${uid}`;
  if ((mode & WRITABLE_BY_ALL) !== 0) return `everyone can write to ${path}`;
  if ((mode & WRITABLE_BY_GROUP) !== 0) return `its group can write to ${path}`;
  return undefined;
}

/** Root, ourselves, and the owner of / (the host's root, where a user namespace has no number for it). */
function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.() || uid === statSync("/").uid;
}
