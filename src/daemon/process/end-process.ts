/**
 * Ending the process.
 *
 * `process.exit` may hang for ever, on a busy machine once in about twenty to a hundred transfers: it joins V8's threads
 * while the isolate still stands, and a thread that compiles and runs out of room waits for the main thread to collect
 * garbage (nodejs/node#54918). A process whose event loop runs empty takes the isolate down first, which lets such
 * threads go on without a collection. So the loop is emptied instead.
 */
import { Socket } from "node:net";

/** How long what we cannot close may keep the process, ms: a lookup in the thread pool, a timer, output nobody reads. */
const PATIENCE_MS = 1000;

/** Something open that keeps the event loop running. */
interface Handle {
  /** Set for `process.stdin`, `stdout` and `stderr`. */
  readonly fd?: number;
  unref?(): unknown;
}

let ending = false;

/**
 * Ends the process in place of `process.exit`, as soon as what has been written to standard output and standard error
 * has gone out. All sockets are destroyed. Later calls do nothing.
 *
 * @param status the exit status.
 */
export function endProcess(status: number): void {
  if (ending) return;
  ending = true;
  process.exitCode = status;
  for (const handle of openHandles()) {
    const { fd } = handle;
    if (handle instanceof Socket && fd !== 1 && fd !== 2) handle.destroy();
    else handle.unref?.();
  }
  setTimeout(() => process.exit(), PATIENCE_MS).unref();
}

/** What is open, by a function of Node's that is not documented; nothing if it is gone, and `PATIENCE_MS` ends us. */
function openHandles(): readonly Handle[] {
  const { _getActiveHandles } = process as unknown as { _getActiveHandles?: () => Handle[] };
  return _getActiveHandles?.call(process) ?? [];
}
