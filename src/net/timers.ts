/** The longest delay that a timer of Node's can have, ms. */
const LONGEST_DELAY = 2 ** 31 - 1;

/**
 * Calls `expire` after `delay` ms, unless the returned function is called first. `Infinity` never expires; delays
 * beyond 24 days are cut to that. It does not keep the process running: what it limits does.
 */
export function deadline(delay: number, expire: () => void): () => void {
  if (delay === Number.POSITIVE_INFINITY) return () => {};
  const timer = setTimeout(expire, Math.min(delay, LONGEST_DELAY)).unref();
  return () => clearTimeout(timer);
}

/** How long at most until `callAt` looks at the clock again, ms. */
const CLOCK_CHECK = 5000;

/**
 * Calls `action` at a time of day, ms since 1970, unless the returned function is called first. The clock is looked at
 * every few seconds: it may be set, and time passes while a machine is suspended. Keeps no process alive.
 */
export function callAt(time: number, action: () => void): () => void {
  let timer: NodeJS.Timeout;
  const wait = () => {
    const left = time - Date.now();
    timer = left > 0 ? setTimeout(wait, Math.min(left, CLOCK_CHECK)) : setTimeout(action, 0);
    timer.unref();
  };
  wait();
  return () => clearTimeout(timer);
}

/**
 * As `deadline`, for something that has to arrive: after the delay, what has arrived is read before `expire` is called.
 * When the event loop is late, a peer that is not must not be taken for late.
 */
export function arrivalDeadline(delay: number, expire: () => void): () => void {
  let immediate: NodeJS.Immediate | undefined;
  const cancel = deadline(delay, () => {
    immediate = setImmediate(expire);
  });
  return () => {
    cancel();
    clearImmediate(immediate);
  };
}
