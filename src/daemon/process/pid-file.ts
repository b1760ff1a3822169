/**
 * Writes the pid file: the decimal pid without a newline, as in Tarsnap's spiped.
 *
 * Unlike Tarsnap's spiped, it does not write through links that another user could have made: the file must not be a
 * link. For root, the directory may belong to another user, but no other user may be able to replace it.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { SpipedError } from "../../errors.ts";
import { isRoot, requireTrusted } from "../../net/trusted-path.ts";

/** O_NONBLOCK: opening a named pipe does not block. */
const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** Permissions before the umask, the same as with `fopen()`. */
const MODE = 0o666;

/** The pid file is a link. */
class LinkError extends SpipedError {
  constructor(kind: "hard" | "symbolic") {
    super("ERR_SPIPED_LINK", `it is a ${kind} link; remove it, or name another file with -p`);
  }
}

/**
 * Creates or overwrites the file.
 *
 * @returns a function that removes the file if it still has this process's pid. It does not throw: after privileges are
 * dropped, the directory may not be accessible.
 * @throws UntrustedPathError or LinkError, or the system's error.
 */
export function writePidFile(path: string): () => void {
  const content = String(process.pid);
  if (isRoot()) requireTrusted(dirname(path));
  try {
    withFile(path, O_WRONLY | O_CREAT, (fd) => {
      const status = fstatSync(fd);
      if (status.isFile()) {
        if (status.nlink > 1) throw new LinkError("hard");
        ftruncateSync(fd);
      }
      writeSync(fd, content);
    });
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === "ELOOP" ? new LinkError("symbolic") : error;
  }
  return () => {
    try {
      const isOurs = withFile(
        path,
        O_RDONLY,
        (fd) => fstatSync(fd).isFile() && readFileSync(fd, "latin1") === content,
      );
      if (isOurs) unlinkSync(path);
    } catch {
      // The file is already removed, or cannot be removed without privileges.
    }
  };
}

function withFile<Result>(path: string, flags: number, use: (fd: number) => Result): Result {
  const fd = openSync(path, flags | O_NOFOLLOW | O_NONBLOCK, MODE);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}
