/**
 * Shares one 'abort' listener per AbortSignal. A program may use one signal for all its connections, and Node warns of
 * a leak at the eleventh listener.
 */
import { CloseSignal } from "./close-signal.ts";

interface Watched {
  readonly actions: Set<() => void>;
  readonly listener: () => void;
}

const watched = new WeakMap<AbortSignal, Watched>();

/**
 * Calls `action` when `signal` is aborted, unless the returned function is called first. Does not call it if the signal
 * is already aborted.
 */
export function onAbort(signal: AbortSignal | CloseSignal | undefined, action: () => void): () => void {
  if (signal === undefined) return () => {};
  if (signal instanceof CloseSignal) return signal.onAbort(action);
  const { actions, listener } = watched.get(signal) ?? watch(signal);
  actions.add(action);
  return () => {
    actions.delete(action);
    if (actions.size > 0) return;
    // Node retains a composite or timeout signal as long as it has a listener.
    signal.removeEventListener("abort", listener);
    watched.delete(signal);
  };
}

function watch(signal: AbortSignal): Watched {
  const actions = new Set<() => void>();
  const listener = () => {
    for (const action of actions) action();
  };
  signal.addEventListener("abort", listener);
  const entry = { actions, listener };
  watched.set(signal, entry);
  return entry;
}
