/** What the primary does with the messages of a worker that is broken, of another version, or dead. */
import { expect, it } from "vitest";
import { aggregateMetrics } from "../../../../src/daemon/observe/metrics.ts";
import { type FakeWorker, LIMITS, startFakePool } from "../../../support/fake-workers.ts";
import { cleanUp } from "../../../support/programs.ts";

const [[LIMIT]] = [...LIMITS] as [[string, number]];

/** Starts a pool of two workers; the tunnel has three slots. */
async function start() {
  const started = await startFakePool(2);
  cleanUp(() => started.stop());
  const [broken, other] = started.workers as [FakeWorker, FakeWorker];
  return { ...started, broken, other };
}

let lastRequest = 1000;

/** Requests more slots than there are, and returns how many are granted. */
function takeAll(worker: FakeWorker): number {
  const requests = Array.from({ length: 10 }, () => ++lastRequest);
  for (const requestId of requests) worker.say({ type: "acquire", limit: LIMIT, requestId });
  const granted = worker.received.flatMap((message) =>
    message.type === "acquired" ? message.requestId : [],
  );
  const waiting = requests.filter((requestId) => !granted.includes(requestId));
  for (const requestId of waiting) worker.say({ type: "cancel", limit: LIMIT, requestId });
  return requests.length - waiting.length;
}

it.each<[string, unknown]>([
  ["null", null],
  ["a text", "ready"],
  ["an unknown type", { type: "other" }],
  ["a log line of an unknown level", { type: "log", level: "constructor", message: "x" }],
  ["a log line without a text", { type: "log", level: "warn", message: 1 }],
  ["a log line with fields that are none", { type: "log", level: "warn", message: "x", fields: { a: {} } }],
  ["an answer without a number", { type: "answer", value: 1 }],
  ["a request for a slot of no limit", { type: "acquire", limit: 1, requestId: 1 }],
  ["a request for a slot without a number", { type: "acquire", limit: LIMIT }],
  ["a release of no limit", { type: "release" }],
])("ignores %s, and logs that once", async (_what, message) => {
  const { broken, other, warnings } = await start();
  broken.say(message);
  broken.say(message);
  expect(warnings).toEqual([
    `ignoring invalid messages from worker ${broken.pid}: if another version was installed, restart the daemon`,
  ]);
  expect(takeAll(other)).toBe(3);
});

it("does not let a worker release slots that it does not hold", async () => {
  const { broken, other } = await start();
  broken.say({ type: "release", limit: LIMIT });
  broken.say({ type: "cancel", limit: LIMIT, requestId: 7 });
  expect(takeAll(other)).toBe(3);
});

it("gives back the slots of a worker that requests two under one number", async () => {
  const { broken, other } = await start();
  expect(takeAll(other)).toBe(3);
  for (let i = 0; i < 2; i += 1) broken.say({ type: "acquire", limit: LIMIT, requestId: 1 });
  broken.exit();
  for (let i = 0; i < 3; i += 1) other.say({ type: "release", limit: LIMIT });
  expect(takeAll(other)).toBe(3);
});

it.each(["acquire", "release"])(
  "ignores a message that arrives after the exit of its sender: %s",
  async (type) => {
    const { broken, other } = await start();
    broken.say({ type: "acquire", limit: LIMIT, requestId: 1 });
    broken.exit();
    broken.say({ type, limit: LIMIT, requestId: 2 });
    expect(takeAll(other)).toBe(3);
  },
);

it.each([
  ["null", null],
  ["a number", 5],
  ["an object", { code: 1 }],
  ["undefined", undefined],
])("reports a worker whose answer to a request to listen is %s", async (_what, value) => {
  const { broken, serving } = await start();
  broken.say({ type: "answer", request: broken.requests("listen")[0], value });
  await expect(serving).rejects.toThrow("invalid answer");
});

it("takes answers that are not numbers of connections, or no metrics, for none", async () => {
  const { pool, tunnel, broken, other, serving } = await start();
  other.say({ type: "answer", request: other.requests("listen")[0], value: true });
  await serving;
  const [connections, metrics] = [tunnel.countConnections(), pool.metrics()];
  const answer = (worker: FakeWorker, type: "connections" | "metrics", value: unknown) =>
    worker.say({ type: "answer", request: worker.requests(type)[0], value });
  answer(broken, "connections", "many");
  answer(other, "connections", 2);
  answer(broken, "metrics", [{ name: "x", values: [{ value: "much" }] }]);
  answer(other, "metrics", [{ name: "x", help: "x", type: "gauge", aggregator: "other", values: [] }]);
  expect(await connections).toBe(2);
  expect(await metrics).toEqual([]);
  expect(await aggregateMetrics(await pool.metrics(), []).metrics()).toContain("spiped_worker_up");
});
