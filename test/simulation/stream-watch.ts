/** Checks the events of a stream of the library: their order, their number, and the classes of errors. */
import { PacketError } from "../../src/protocol/protocol-error.ts";
import type { SpipedSocket } from "../../src/tunnel/spiped-socket.ts";
import { ConnectionLostError, RejectedError } from "../../src/tunnel/tunnel-error.ts";

/** Errors that a program gives to `destroy()`. */
export class ProgramError extends Error {}

/** Codes of system errors that end a connection. */
const SYSTEM_CODES = ["ECONNRESET", "EPIPE", "ETIMEDOUT"];

/** Events that occur at most once. */
const UNIQUE = ["end", "finish", "error", "close"];
/** Events of `pause()` and `resume()`, which `pipe()` calls on closed streams too. */
const FLOW = ["pause", "resume"];
/** Events that must not follow another one. */
const FORBIDDEN: Readonly<Record<string, readonly string[]>> = {
  end: ["data", "readable"],
  error: ["data", "readable", "end", "finish", "drain"],
};

/** Returns true for what a program, or Node when its iteration ends early, gives to `destroy()`. */
export function isProgramError(error: unknown): boolean {
  return error === null || error instanceof ProgramError || (error as Error).name === "AbortError";
}

/** Returns true for an error with which the documentation says that a stream may be destroyed. */
export function isStreamError(error: unknown): boolean {
  if (error instanceof PacketError || error instanceof ConnectionLostError) return true;
  if (isProgramError(error)) return true;
  if (error instanceof RejectedError) return error.code === "ERR_SPIPED_KEY_EXPIRED";
  return isSystemError(error);
}

function isSystemError(error: unknown): boolean {
  if (!(error instanceof Error) || !("syscall" in error)) return false;
  return SYSTEM_CODES.includes((error as NodeJS.ErrnoException).code ?? "");
}

/** Returns true for an error with which a write callback may be called. */
export function isWriteError(error: Error): boolean {
  const { code = "" } = error as NodeJS.ErrnoException;
  return isStreamError(error) || code === "ERR_STREAM_DESTROYED" || code === "ECANCELED";
}

/** Describes an error for the trace: without what differs between versions of Node. */
export function describeError(error: Error): string {
  return `${error.constructor.name} ${(error as NodeJS.ErrnoException).code ?? ""}`.trimEnd();
}

/**
 * Watches all events that a stream emits.
 *
 * @param onEvent - called before each event.
 * @param onViolation - called with what is wrong.
 */
export function watchEvents(
  socket: SpipedSocket,
  onEvent: (name: string) => void,
  onViolation: (message: string) => void,
): void {
  const seen = new Set<string>();
  const emit = socket.emit.bind(socket) as (name: string | symbol, ...args: unknown[]) => boolean;
  const watched = (name: string | symbol, ...args: unknown[]) => {
    if (typeof name === "string" && name !== "newListener" && name !== "removeListener") {
      onEvent(name);
      if (seen.has("close") && !FLOW.includes(name)) onViolation(`'${name}' after 'close'`);
      if (UNIQUE.includes(name) && seen.has(name)) onViolation(`'${name}' twice`);
      for (const [first, later] of Object.entries(FORBIDDEN)) {
        if (seen.has(first) && later.includes(name)) onViolation(`'${name}' after '${first}'`);
      }
      if (name === "error" && !isStreamError(args[0]))
        onViolation(`'error' with ${describeError(args[0] as Error)}: ${(args[0] as Error).stack}`);
      if (name === "close" && socket.errored !== null && !seen.has("error"))
        onViolation("'close' without the 'error' before it");
      seen.add(name);
    }
    return emit(name, ...args);
  };
  socket.emit = watched;
}
