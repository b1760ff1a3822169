/** The longest delay that a timer of Node's can have, ms. */
const LONGEST_DELAY = 2 ** 31 - 1;

/**
 * Calls `expire` after `delay` ms, unless the returned function is called first. `Infinity` never expires; delays
 * beyond 24 days are cut to that.
 */
export function deadline(delay: number, expire: () => void): () => void {
  if (delay === Number.POSITIVE_INFINITY) return () => {};
  const timer = setTimeout(expire, Math.min(delay, LONGEST_DELAY));
  return () => clearTimeout(timer);
}
