import { afterEach, expect, it, vi } from "vitest";
import { VerificationQueue } from "../../../src/tunnel/verification-queue.ts";

const unknown = () => "unknown" as const;

afterEach(() => void vi.restoreAllMocks());

it("runs known sources first and suspects last, and the newest task of each priority first", async () => {
  const queue = new VerificationQueue();
  const order: string[] = [];
  const add = (priority: "known" | "unknown" | "suspect", name: string) =>
    queue.run(
      () => priority,
      () => {
        order.push(name);
        return true;
      },
    );
  await Promise.all([
    add("suspect", "suspect"),
    add("unknown", "older"),
    add("unknown", "newer"),
    add("known", "known"),
  ]);
  expect(order).toEqual(["known", "newer", "older", "suspect"]);
});

it("runs a task later if its source has become suspect while it was queued", async () => {
  const queue = new VerificationQueue();
  const order: string[] = [];
  let hasFailed = false;
  const add = (name: string, priority: () => "unknown" | "suspect") =>
    queue.run(priority, () => {
      order.push(name);
      hasFailed = true;
      return true;
    });
  const ofAttacker = () => (hasFailed ? "suspect" : "unknown");
  await Promise.all([
    add("honest", unknown),
    add("attacker", ofAttacker),
    add("attacker", ofAttacker),
    add("attacker first", ofAttacker),
  ]);
  expect(order).toEqual(["attacker first", "honest", "attacker", "attacker"]);
});

it("finishes the current task first, and leaves half of the time to other work", async () => {
  let clock = 0;
  vi.spyOn(performance, "now").mockImplementation(() => clock);
  vi.spyOn(globalThis, "setTimeout").mockImplementation(((expire: () => void, delay: number) => {
    clock += delay;
    setImmediate(expire);
  }) as never);
  const queue = new VerificationQueue();
  const order: string[] = [];
  let turns = 0;
  let busy = 0;
  const add = (name: string) => {
    let left = 20;
    return queue.run(unknown, () => {
      clock += 0.5;
      busy += 0.5;
      left -= 1;
      if (left > 0) return undefined;
      order.push(name);
      return true;
    });
  };
  const tasks = [add("first")];
  let running = true;
  const count = () => {
    turns += 1;
    if (turns === 3) tasks.push(add("second"));
    if (running) setImmediate(count);
  };
  setImmediate(count);
  await tasks[0];
  await tasks[1];
  running = false;
  expect(order).toEqual(["first", "second"]);
  expect(busy).toBe(20);
  expect(clock).toBeGreaterThanOrEqual(38);
});

it("rejects with the error that a step throws, and runs the next task", async () => {
  const queue = new VerificationQueue();
  const failing = queue.run(unknown, () => {
    throw new Error("wrong");
  });
  const other = queue.run(unknown, () => "right");
  await expect(failing).rejects.toThrow("wrong");
  expect(await other).toBe("right");
});
