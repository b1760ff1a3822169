/**
 * Exits the process without `process.exit()`.
 *
 * `process.exit()` may hang forever; on a busy machine, about once in 20 to 100 transfers. It joins V8's threads before
 * it disposes of the isolate, and a compiler thread that runs out of memory waits for the main thread to collect
 * garbage (nodejs/node#54918). When the event loop becomes empty, Node disposes of the isolate first, so such threads
 * finish without a collection. Therefore this module empties the event loop.
 */
import { Socket } from "node:net";

/**
 * Time after which the process exits even if something keeps it running, such as a lookup in the thread pool, a timer,
 * or output that is not read, in ms.
 */
const FORCED_EXIT_DELAY_MS = 1000;

/** An open handle that keeps the event loop running. */
interface Handle {
  /** Set for `process.stdin`, `stdout` and `stderr`. */
  readonly fd?: number;
  unref?(): unknown;
}

let ending = false;

/**
 * Exits the process when all data written to standard output and standard error is flushed. Destroys all other sockets.
 * Later calls do nothing.
 *
 * @param status - the exit status.
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
  setTimeout(() => process.exit(), FORCED_EXIT_DELAY_MS).unref();
}

/**
 * Returns the open handles, by an undocumented function of Node. If a later version lacks it, the list is empty and the
 * process may exit only after `FORCED_EXIT_DELAY_MS`.
 */
function openHandles(): readonly Handle[] {
  const { _getActiveHandles } = process as unknown as { _getActiveHandles?: () => Handle[] };
  return _getActiveHandles?.call(process) ?? [];
}
