/**
 * The messages of workers to the primary. The input is a list of actions of two workers: messages that are correct,
 * wrong or of any shape, and exits, after which messages may still arrive.
 *
 * Nothing that a worker sends makes the primary throw. What the primary asks its workers gives a result of the right
 * type, and when both have exited, a third worker gets exactly as many slots as each limit has.
 */
import { aggregateMetrics } from "../../../src/daemon/observe/metrics.ts";
import { type FakeWorker, LIMITS, startFakePool } from "../../support/fake-workers.ts";
import { check, type FuzzTarget } from "../target.ts";

const LIMIT_IDS = [...LIMITS.keys()];

/** Reads values from the input; at its end, all are zero. */
class Reader {
  readonly #input: Buffer;
  #at = 0;

  constructor(input: Buffer) {
    this.#input = input;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#input.length;
  }

  byte(): number {
    return this.#input[this.#at++] ?? 0;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.byte() % list.length]!;
  }

  text(): string {
    const length = this.byte() % 16;
    const text = this.#input.toString("utf8", this.#at, this.#at + length);
    this.#at += length;
    return text;
  }

  /** Returns any value that can be sent to another process. */
  value(depth = 0): unknown {
    switch (this.byte() % (depth < 3 ? 16 : 13)) {
      case 0:
        return undefined;
      case 1:
        return null;
      case 2:
        return true;
      case 3:
        return false;
      case 4:
        return this.byte();
      case 5:
        return this.pick([Number.NaN, Number.POSITIVE_INFINITY, -1, 0.5, 2 ** 53, -0]);
      case 6:
        return this.pick([0n, 2n ** 70n]);
      case 7:
        return this.text();
      case 8:
        return this.pick(LIMIT_IDS);
      case 9:
        return new Date(this.byte());
      case 10:
        return new Uint8Array(this.byte() % 4);
      case 11:
        return new Map([[this.byte(), this.byte()]]);
      case 12:
        return new Error("x");
      case 13:
        return Array.from({ length: this.byte() % 4 }, () => this.value(depth + 1));
      case 14:
        return { code: this.value(depth + 1), message: this.value(depth + 1) };
      default: {
        const names = [
          "type",
          "name",
          "values",
          "value",
          "labels",
          "aggregator",
          "help",
          "__proto__",
          "toString",
        ];
        const entries = Array.from({ length: this.byte() % 6 }, () => [
          this.pick(names),
          this.value(depth + 1),
        ]);
        return Object.fromEntries(entries);
      }
    }
  }

  /** Returns a correct value in most cases, and otherwise any. */
  usually(make: () => unknown): unknown {
    return this.byte() % 8 === 0 ? this.value() : make();
  }
}

const TYPES = ["acquire", "cancel", "release", "answer", "log", "ready", "pong"] as const;

function message(reader: Reader, worker: FakeWorker): unknown {
  if (reader.byte() % 16 === 0) return reader.value();
  const type = reader.pick(TYPES);
  const limit = reader.usually(() => reader.pick([...LIMIT_IDS, "none", "__proto__"]));
  const requestId = reader.usually(() => reader.byte() % 8);
  switch (type) {
    case "acquire":
    case "cancel":
      return { type, limit, requestId };
    case "release":
      return { type, limit };
    case "answer": {
      const asked = worker.received.flatMap((each) => ("request" in each ? each.request : []));
      return { type, request: reader.usually(() => reader.pick([...asked, 0])), value: reader.value() };
    }
    case "log": {
      const level = reader.usually(() => reader.pick(["warn", "info"]));
      return { type, level, message: reader.usually(() => reader.text()), fields: reader.value() };
    }
    default:
      return { type: reader.usually(() => type) };
  }
}

/** Requests more slots of a limit than it has; returns how many are granted. */
function takeAll(worker: FakeWorker, limit: string, firstRequest: number): number {
  const before = worker.slots;
  for (let i = 0; i < 10; i += 1) worker.say({ type: "acquire", limit, requestId: firstRequest + i });
  return worker.slots - before;
}

export function makeTarget(): FuzzTarget {
  return {
    seeds: [
      // Each action: the worker, whether it is an exit or a query, and the message.
      Buffer.from([0, 5, 1, 0, 1, 0, 1, 1, 0, 5, 1, 2, 1, 0, 1, 1]),
      Buffer.from([1, 5, 1, 3, 1, 0, 1, 0, 1, 0, 2]),
      Buffer.from([0, 1, 1, 5, 1, 3, 1, 0, 1, 0, 1, 1, 13, 2, 4, 4]),
      Buffer.from([0, 0, 0, 5, 1, 2, 1, 0, 1, 0]),
      Buffer.from([0, 2, 1, 6, 16, 15, 5, 1, 7, 1, 65, 3, 15, 4, 15, 8, 7]),
      Buffer.alloc(64, 0x25),
    ],
    words: ["\x01\x00\x01", "\x05", "sum", "gauge", "code", "\x0f\x05"],
    async run(input) {
      const reader = new Reader(input);
      const started = await startFakePool(3);
      const { pool, tunnel, workers } = started;
      const [first, second, honest] = workers as [FakeWorker, FakeWorker, FakeWorker];
      // Stays pending if all workers exit, since others are started.
      started.serving.catch((error: unknown) => check(error instanceof Error, "no error"));
      const queries: Promise<void>[] = [];
      const ask = async () => {
        const [connections, isReachable, metrics] = await Promise.all([
          tunnel.countConnections(),
          tunnel.isReachable(),
          pool.metrics(),
        ]);
        check(Number.isSafeInteger(connections) && connections >= 0, "a count is none", connections);
        check(isReachable === undefined || typeof isReachable === "boolean", "reachable", isReachable);
        const registry = aggregateMetrics(metrics, pool.status());
        check((await registry.metrics()).includes("spiped_worker_up"), "no metrics");
      };
      try {
        for (let actions = 0; actions < 200 && !reader.isAtEnd; actions += 1) {
          const worker = reader.pick([first, second]);
          const action = reader.byte() % 16;
          if (action === 0) worker.exit();
          else if (action === 1 && queries.length < 5) queries.push(ask());
          else worker.say(message(reader, worker));
        }
        first.exit();
        second.exit();
        let request = 1000;
        for (const [limit, count] of LIMITS) {
          const granted = takeAll(honest, limit, request);
          check(granted === count, "the number of slots has changed", { limit, count, granted });
          request += 100;
        }
        check(
          pool.status().some(({ pid }) => pid === honest.pid),
          "the third worker is lost",
        );
      } finally {
        await started.stop();
      }
      await Promise.all(queries);
    },
  };
}
