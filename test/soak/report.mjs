/** What a soak test counts, and its failures. */

/** A run with more failures than this ends early. */
const MAX_FAILURES = 20;

let started = performance.now();
const counts = new Map();

/** Failures, in the order in which they happened. */
export const failures = [];

/** Returns the time since the start, in seconds. */
export const elapsed = () => (performance.now() - started) / 1000;

/** Sets the start to now. */
export function startClock() {
  started = performance.now();
}

/** Adds to a counter. */
export function count(name, amount = 1) {
  counts.set(name, (counts.get(name) ?? 0) + amount);
}

/** Returns the value of a counter. */
export const counted = (name) => counts.get(name) ?? 0;

/** Returns all counters, sorted by name. */
export const allCounts = () => Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));

/** Records a failure. */
export function fail(message) {
  const line = `at ${elapsed().toFixed(1)} s: ${message}`;
  failures.push(line);
  console.log(`FAILURE ${line}`);
}

/** Returns true if there are so many failures that the run should end. */
export const isHopeless = () => failures.length > MAX_FAILURES;

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Returns an integer from `low` to `high`. */
export const random = (low, high) => low + Math.floor(Math.random() * (high - low + 1));

/** Resolves when the condition holds: true; or after so many seconds: false. */
export async function until(condition, seconds) {
  const end = performance.now() + seconds * 1000;
  while (!(await condition())) {
    if (performance.now() > end) return false;
    await sleep(20);
  }
  return true;
}
