/** Maximum delay of a Node timer, in ms. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/**
 * Calls `expire` after `delay` ms, unless the returned function is called first. `Infinity` never expires; other delays
 * are limited to 24 days. Does not keep the process alive: the operation with the timeout does.
 */
export function startTimeout(delay: number, expire: () => void): () => void {
  if (delay === Number.POSITIVE_INFINITY) return () => {};
  const timer = setTimeout(expire, Math.min(delay, MAX_DELAY_MS)).unref();
  return () => clearTimeout(timer);
}

/** Maximum time between two clock checks of `callAt`, in ms. */
const CLOCK_CHECK_MS = 5000;

/**
 * Calls `action` at `time`, in ms since the epoch, unless the returned function is called first. Checks the clock every
 * few seconds, since it may be set and the machine may be suspended. Does not keep the process alive.
 */
export function callAt(time: number, action: () => void): () => void {
  let timer: NodeJS.Timeout;
  const wait = () => {
    const left = time - Date.now();
    timer = left > 0 ? setTimeout(wait, Math.min(left, CLOCK_CHECK_MS)) : setTimeout(action, 0);
    timer.unref();
  };
  wait();
  return () => clearTimeout(timer);
}

/**
 * Like `startTimeout`, for data expected from a peer: after the delay, already received data is read before `expire` is
 * called. So a delayed event loop does not time out a punctual peer.
 */
export function startArrivalTimeout(delay: number, expire: () => void): () => void {
  let immediate: NodeJS.Immediate | undefined;
  const cancel = startTimeout(delay, () => {
    immediate = setImmediate(expire);
  });
  return () => {
    cancel();
    clearImmediate(immediate);
  };
}
