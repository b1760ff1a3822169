/**
 * Reacting to an AbortSignal. A program may give all its connections one signal, and Node warns of a leak from the
 * eleventh listener on: so a signal gets one listener, which calls all others.
 */

const actionsOf = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `action` when `signal` is aborted, unless the returned function is called first. It is not called for a signal
 * that is aborted already.
 */
export function onAbort(signal: AbortSignal | undefined, action: () => void): () => void {
  if (signal === undefined) return () => {};
  let actions = actionsOf.get(signal);
  if (actions === undefined) {
    actions = new Set();
    actionsOf.set(signal, actions);
    const all = actions;
    signal.addEventListener(
      "abort",
      () => {
        for (const each of all) each();
      },
      { once: true },
    );
  }
  actions.add(action);
  return () => void actions.delete(action);
}
