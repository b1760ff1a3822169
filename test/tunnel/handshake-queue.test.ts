import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { HandshakeQueue } from "../../src/tunnel/handshake-queue.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const never = () => new AbortController().signal;

/** A new queue whose places are all taken, by handshakes that end when told to. */
function fullQueue() {
  const queue = new HandshakeQueue();
  const finish: (() => void)[] = [];
  const open = () => new Promise<void>((resolve) => finish.push(resolve));
  const running = Array.from({ length: 32 }, () => queue.run(1000, never(), open));
  return { queue, finish, running };
}

it("lets some handshakes be under way, and the next one when one has ended", async () => {
  const { queue, finish, running } = fullQueue();
  await vi.advanceTimersByTimeAsync(0);
  expect(finish).toHaveLength(32);
  const next = queue.run(1000, never(), async () => "opened");
  finish[0]!();
  await running[0];
  expect(await next).toBe("opened");
});

it("waits beyond the time limit as long as others succeed, and not longer", async () => {
  const { queue, finish } = fullQueue();
  let outcome = "waiting";
  // Those in front of it take the places that become free.
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

it("opens more at a time as long as they are quick, and fewer when they are slow", async () => {
  const queue = new HandshakeQueue();
  let inFlight = 0;
  const mostOf = async (duration: number) => {
    let most = 0;
    const all = Promise.all(
      Array.from({ length: 600 }, () =>
        queue.run(5000, never(), async () => {
          inFlight += 1;
          most = Math.max(most, inFlight);
          await new Promise((done) => setTimeout(done, duration));
          inFlight -= 1;
        }),
      ),
    );
    await vi.advanceTimersByTimeAsync(100 * duration);
    await all;
    return most;
  };
  expect(await mostOf(300)).toBe(256);
  await mostOf(2000);
  expect(await mostOf(2000)).toBe(32);
});

it("gives up a place in the queue when its client leaves", async () => {
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
