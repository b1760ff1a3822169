/** The pid file: the decimal pid, without a newline, as the original writes it. */
import { readFileSync, unlinkSync, writeFileSync } from "node:fs";

/**
 * Creates or overwrites the file.
 *
 * @returns a function that removes it, unless another process has written its own pid by then. It does not throw: after
 * privileges are dropped, the directory may be out of our reach.
 * @throws the system's error.
 */
export function writePidFile(path: string): () => void {
  const content = String(process.pid);
  writeFileSync(path, content);
  return () => {
    try {
      if (readFileSync(path, "latin1") === content) unlinkSync(path);
    } catch {
      // It is gone already, or no longer ours to remove.
    }
  };
}
