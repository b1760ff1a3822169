/**
 * Reacting to an AbortSignal. A program may give all its connections one signal, and Node warns of a leak from the
 * eleventh listener on: so a signal gets one listener, which calls all others.
 */

interface Watched {
  readonly actions: Set<() => void>;
  readonly listener: () => void;
}

const watched = new WeakMap<AbortSignal, Watched>();

/**
 * Calls `action` when `signal` is aborted, unless the returned function is called first. It is not called for a signal
 * that is aborted already.
 */
export function onAbort(signal: AbortSignal | undefined, action: () => void): () => void {
  if (signal === undefined) return () => {};
  const { actions, listener } = watched.get(signal) ?? watch(signal);
  actions.add(action);
  return () => {
    actions.delete(action);
    if (actions.size > 0) return;
    // Node keeps a composite signal, or one with a timeout, for as long as it has a listener.
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
