/**
 * The pid file: the decimal pid, without a newline, as the original writes it.
 *
 * Unlike the original, root writes it through no link that another user could have made: the file may be in a directory
 * of that user, but its directory must not be replaceable, and its own name must not be a link.
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

/** A named pipe is not waited for. */
const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** As `fopen` has it; the umask applies. */
const MODE = 0o666;

/** The pid file's name leads to another file. */
class LinkError extends SpipedError {
  constructor(kind: "hard" | "symbolic") {
    super("ERR_SPIPED_LINK", `it is a ${kind} link; remove it, or name another file with -p`);
  }
}

/**
 * Creates or overwrites the file.
 *
 * @returns a function that removes it, unless another process has written its own pid by then. It does not throw: after
 * privileges are dropped, the directory may be out of our reach.
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
      // It is gone already, or no longer ours to remove.
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
