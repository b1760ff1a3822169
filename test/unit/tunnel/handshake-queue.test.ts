import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { HandshakeQueue } from "../../../src/tunnel/handshake-queue.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const never = () => new AbortController().signal;

/** Returns a queue whose initial limit is reached, by handshakes that each finish when a function is called. */
function fullQueue() {
  const queue = new HandshakeQueue();
  const finish: (() => void)[] = [];
  const open = () => new Promise<void>((resolve) => finish.push(resolve));
  const running = Array.from({ length: 8 }, () => queue.run(1000, never(), open));
  return { queue, finish, running };
}

it("limits concurrent handshakes, and starts the next one when one has finished", async () => {
  const { queue, finish, running } = fullQueue();
  await vi.advanceTimersByTimeAsync(0);
  expect(finish).toHaveLength(8);
  const next = queue.run(1000, never(), async () => "opened");
  finish[0]!();
  await running[0];
  expect(await next).toBe("opened");
});

it("extends the time limit while other handshakes succeed, but no longer", async () => {
  const { queue, finish } = fullQueue();
  let outcome = "waiting";
  // Tasks ahead in the queue take the slots that are released.
  for (let i = 0; i < 2; i += 1) void queue.run(1e6, never(), () => new Promise(() => {}));
  queue
    .run(1000, never(), async () => {})
    .catch((error) => {
      outcome = error.code;
    });
  for (let i = 0; i < 2; i += 1) {
    await vi.advanceTimersByTimeAsync(900);
    finish[i]!();
  }
  await vi.advanceTimersByTimeAsync(1000);
  expect(outcome).toBe("waiting");
  await vi.advanceTimersByTimeAsync(2000);
  expect(outcome).toBe("ERR_SPIPED_CONNECT_TIMEOUT");
});

/**
 * Opens many connections at once.
 *
 * @param duration - returns the time that a connection takes, from the number that are being opened, in ms.
 * @returns the largest number opened at the same time in the second half, and the failures.
 */
async function openMany(queue: HandshakeQueue, count: number, duration: (inFlight: number) => number) {
  let inFlight = 0;
  let started = 0;
  let most = 0;
  const all = Promise.allSettled(
    Array.from({ length: count }, () =>
      queue.run(5000, never(), async () => {
        inFlight += 1;
        started += 1;
        if (started > count / 2) most = Math.max(most, inFlight);
        const time = duration(inFlight);
        await new Promise((done) => setTimeout(done, Math.min(time, 5000)));
        inFlight -= 1;
        if (time > 5000) throw new Error("timeout");
      }),
    ),
  );
  let isDone = false;
  void all.then(() => {
    isDone = true;
  });
  while (!isDone) await vi.advanceTimersByTimeAsync(100);
  const failures = (await all).filter(({ status }) => status === "rejected").length;
  return { most, failures };
}

it("opens more at a time while they do not wait for each other", async () => {
  const queue = new HandshakeQueue();
  let i = 0;
  const jitter = () => 300 + 37 * (i++ % 8);
  expect(await openMany(queue, 800, jitter)).toEqual({ most: 256, failures: 0 });
});

it("opens few at a time to a target that is busy", async () => {
  const queue = new HandshakeQueue();
  const { most, failures } = await openMany(queue, 500, (inFlight) => 3 + 2 * inFlight);
  expect(failures).toBe(0);
  expect(most).toBeLessThanOrEqual(24);
});

it("opens few at a time to a target with a short listen backlog, whose overflow waits for retransmissions", async () => {
  const queue = new HandshakeQueue();
  const { most, failures } = await openMany(queue, 500, (inFlight) => (inFlight > 24 ? 7000 : 3 + inFlight));
  expect(failures).toBe(0);
  expect(most).toBeLessThanOrEqual(24);
});

it("opens fewer at a time when connections are slow for the timeout, and more again when they are not", async () => {
  const queue = new HandshakeQueue();
  expect((await openMany(queue, 300, () => 300)).most).toBeGreaterThan(100);
  expect((await openMany(queue, 600, () => 2000)).most).toBe(8);
  expect((await openMany(queue, 300, () => 300)).most).toBeGreaterThan(100);
});

it("adapts to a target that has become more distant", async () => {
  const queue = new HandshakeQueue();
  await openMany(queue, 10, () => 50);
  expect((await openMany(queue, 100, () => 1200)).most).toBeLessThan(16);
  expect((await openMany(queue, 300, () => 1200)).most).toBeGreaterThan(64);
});

it("does not raise the limit while no connection is queued", async () => {
  const queue = new HandshakeQueue();
  for (let i = 0; i < 50; i += 1) await openMany(queue, 1, () => 5);
  const finish: (() => void)[] = [];
  for (let i = 0; i < 20; i += 1)
    void queue.run(5000, never(), () => new Promise<void>((resolve) => finish.push(resolve)));
  await vi.advanceTimersByTimeAsync(0);
  expect(finish).toHaveLength(8);
});

it("removes a handshake from the queue when its client disconnects", async () => {
  const { queue, finish } = fullQueue();
  const client = new AbortController();
  const gone = queue.run(1000, client.signal, async () => {});
  const next = queue.run(1000, never(), async () => "opened");
  client.abort(new Error("client closed"));
  await expect(gone).rejects.toThrow("client closed");
  await vi.advanceTimersByTimeAsync(0);
  finish[0]!();
  expect(await next).toBe("opened");
  await expect(queue.run(1000, client.signal, async () => {})).rejects.toThrow("client closed");
});
