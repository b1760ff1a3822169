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
  const running = Array.from({ length: 32 }, () => queue.run(1000, never(), open));
  return { queue, finish, running };
}

it("limits concurrent handshakes, and starts the next one when one has finished", async () => {
  const { queue, finish, running } = fullQueue();
  await vi.advanceTimersByTimeAsync(0);
  expect(finish).toHaveLength(32);
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

it("raises the limit while handshakes are fast, and lowers it when they are slow", async () => {
  const queue = new HandshakeQueue();
  let inFlight = 0;
  const maxInFlight = async (duration: number) => {
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
  expect(await maxInFlight(300)).toBe(256);
  await maxInFlight(2000);
  expect(await maxInFlight(2000)).toBe(32);
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
