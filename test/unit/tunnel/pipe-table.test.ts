/**
 * A table of what happens at each point of a transfer: both directions of a pipe, over sockets with direct reads and
 * writes and over ordinary streams, with both engines.
 */
import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { MAX_READ_BYTES, nextReadSize, ReadBudget } from "../../../src/net/fairness.ts";
import type { DirectionKeys, Engine } from "../../../src/protocol/engine/engine.ts";
import type { Output } from "../../../src/protocol/engine/output-pool.ts";
import { portableEngine } from "../../../src/protocol/engine/portable.ts";
import { loadEngine } from "../../../src/protocol/engine/select.ts";
import { SessionKeys } from "../../../src/protocol/key-schedule.ts";
import { Opener } from "../../../src/protocol/opener.ts";
import { openedSize, PACKET_DATA_SIZE, PACKET_SIZE, sealedSize } from "../../../src/protocol/packet.ts";
import { Sealer } from "../../../src/protocol/sealer.ts";
import { pipe, type Traffic } from "../../../src/tunnel/pipe.ts";
import {
  type ReadStep,
  type Script,
  ScriptedDirectSocket,
  type ScriptedKind,
  ScriptedSocket,
  systemError,
  type WriteStep,
} from "../../support/scripted-socket.ts";

type Direction = "sealing" | "opening";

/** Counts the ciphers that an engine has created and that have been destroyed. */
class CountingEngine implements Engine {
  readonly #engine: Engine;
  created = 0;
  destroyed = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  get name() {
    return this.#engine.name;
  }

  get workspace() {
    return this.#engine.workspace;
  }

  get upkeep() {
    return this.#engine.upkeep!;
  }

  createCipher(keys: DirectionKeys) {
    const cipher = this.#engine.createCipher(keys);
    const destroy = cipher.destroy.bind(cipher);
    this.created += 1;
    cipher.destroy = () => {
      this.destroyed += 1;
      destroy();
    };
    return cipher;
  }
}

const ENGINE = await loadEngine();
const NATIVE = new CountingEngine(ENGINE);
const PORTABLE = new CountingEngine(portableEngine);

/** Returns the number of free outputs of an engine. */
function freeOutputs({ workspace: { outputs } }: Engine): number {
  const free: Output[] = [];
  for (const length of [1, 128 * 1024]) {
    for (let output = outputs.acquire(length); output !== undefined; output = outputs.acquire(length)) {
      free.push(output);
    }
  }
  for (const output of free) outputs.release(output);
  return free.length;
}

/** A transfer in one direction: what the source receives, and what the sink must receive of it. */
interface Transfer {
  /** What the source's stream has buffered when the pipe starts. */
  readonly buffered?: Buffer;
  readonly reads: readonly Buffer[];
  /** The data before the first damaged or incomplete packet. */
  readonly data: Buffer;
  readonly failure?: "ERR_SPIPED_BAD_MAC" | "ERR_SPIPED_TRUNCATED" | undefined;
}

/** Seals data as the peer does. */
type Seal = (data: Buffer) => Buffer;

/** Sizes of the messages of a transfer; each is one read. */
const MESSAGES: Readonly<Record<string, readonly number[]>> = {
  "1 byte": [1],
  "64 bytes": [64],
  "1024 bytes": [1024],
  "1025 bytes": [1025],
  "4 packets": [4 * PACKET_DATA_SIZE],
  "5 packets": [5 * PACKET_DATA_SIZE],
  "64 packets": [64 * PACKET_DATA_SIZE],
  "65 packets": [65 * PACKET_DATA_SIZE],
  "100 kB": [100_000],
  "messages of several sizes": [1, 5000, 64, 1024, 70_000, 1],
};

/** Reads of packets that are cut or damaged. `packets` are three, with the data. */
const CUTS: Readonly<Record<string, (packets: Buffer, data: Buffer) => Transfer>> = {
  "a packet cut after 1 byte": (packets, data) => ({ reads: cut(packets, 1), data }),
  "a packet cut after 1059 bytes": (packets, data) => ({ reads: cut(packets, PACKET_SIZE - 1), data }),
  "a packet cut in the middle of a read": (packets, data) => ({
    reads: cut(packets, PACKET_SIZE + 500, 2 * PACKET_SIZE + 1),
    data,
  }),
  "two packets in one read, the second damaged": (packets, data) => {
    packets[PACKET_SIZE + 7]! ^= 1;
    const reads = cut(packets, 2 * PACKET_SIZE);
    return { reads, data: data.subarray(0, PACKET_DATA_SIZE), failure: "ERR_SPIPED_BAD_MAC" };
  },
  "a damaged packet, then good ones": (packets, data) => {
    packets[PACKET_SIZE - 1]! ^= 128;
    return { reads: cut(packets, PACKET_SIZE), data: data.subarray(0, 0), failure: "ERR_SPIPED_BAD_MAC" };
  },
  "good packets, then garbage": (packets, data) => {
    const garbage = randomBytes(2000);
    return { reads: [packets, garbage, garbage], data, failure: "ERR_SPIPED_BAD_MAC" };
  },
  "good packets and garbage in one read": (packets, data) => ({
    reads: [Buffer.concat([packets, randomBytes(2000)])],
    data,
    failure: "ERR_SPIPED_BAD_MAC",
  }),
  "an end inside a packet": (packets, data) => ({
    reads: [packets.subarray(0, 2 * PACKET_SIZE + 5)],
    data: data.subarray(0, 2 * PACKET_DATA_SIZE),
    failure: "ERR_SPIPED_TRUNCATED",
  }),
};

function cut(bytes: Buffer, ...at: number[]): Buffer[] {
  const ends = [...at, bytes.length];
  return ends.map((end, i) => bytes.subarray(at[i - 1] ?? 0, end));
}

/** Returns all transfers of a direction, by name. */
function transfers(direction: Direction): [string, (seal: Seal) => Transfer][] {
  const messages = Object.entries(MESSAGES).map(([name, sizes]): [string, (seal: Seal) => Transfer] => [
    name,
    (seal) => {
      const parts = sizes.map((size) => randomBytes(size));
      return { reads: direction === "sealing" ? parts : parts.map(seal), data: Buffer.concat(parts) };
    },
  ]);
  if (direction === "sealing") return messages;
  const cuts = Object.entries(CUTS).map(([name, make]): [string, (seal: Seal) => Transfer] => [
    name,
    (seal) => {
      const data = randomBytes(3 * PACKET_DATA_SIZE);
      return make(seal(data), data);
    },
  ]);
  return [...messages, ...cuts];
}

/** One cell of the table. */
interface Cell {
  readonly direction: Direction;
  readonly kind: ScriptedKind;
  readonly engine: CountingEngine;
}

interface Events {
  /** What follows the source's data. */
  readonly then: readonly ReadStep[];
  /** Steps between two reads of the source. */
  readonly between?: readonly ReadStep[];
  readonly writes?: ((index: number) => WriteStep) | undefined;
  /** What was written to the sink before the pipe starts. */
  readonly written?: Buffer;
  /** What the sink receives: the opposite direction. */
  readonly opposite?: readonly ReadStep[];
  /** Data that the sink receives before that. */
  readonly answer?: Buffer;
}

/** Starts a pipe between two scripted sockets. */
function startPipe({ direction, kind, engine }: Cell, make: (seal: Seal) => Transfer, events: Events) {
  const material = randomBytes(128);
  const session = new SessionKeys(Buffer.from(material), "client");
  const peer = new SessionKeys(material, "server");
  const sealer = new Sealer(ENGINE, peer.seal);
  const seal = (data: Buffer) => {
    const out = Buffer.alloc(sealedSize(data.length));
    return out.subarray(0, sealer.seal(data, out));
  };
  const create = (script: Script) =>
    kind === "direct"
      ? new ScriptedDirectSocket(script, engine.workspace.readBuffer)
      : new ScriptedSocket(script);
  const { between = [], answer, opposite = [], writes, written = Buffer.alloc(0) } = events;
  const transfer = make(seal);
  const reads = transfer.reads.flatMap((read, i) => (i === 0 ? [read] : [...between, read]));
  const source = create({ reads: [...reads, ...events.then], buffered: transfer.buffered });
  const answers = answer === undefined ? [] : [direction === "sealing" ? seal(answer) : answer];
  const sink = create({ reads: [...answers, ...opposite], writes });
  if (written.length > 0) sink.write(written);
  const [plaintext, encrypted] = direction === "sealing" ? [source, sink] : [sink, source];
  const traffic: Traffic = { bytesEncrypted: 0, bytesDecrypted: 0 };
  const before = { free: freeOutputs(engine), open: engine.created - engine.destroyed };
  let outcome: string | undefined;
  const sideOf = (side: string) => ((side === "plaintext") === (source === plaintext) ? "source" : "sink");
  void pipe({
    plaintext: plaintext.socket,
    encrypted: encrypted.socket,
    session,
    engine,
    keepAlive: true,
    idleTimeout: Number.POSITIVE_INFINITY,
    traffic,
  }).then(
    () => {
      outcome = "ended";
    },
    ({ code, side }: { code: string; side?: string }) => {
      outcome = side === undefined ? code : `${code} ${sideOf(side)}`;
    },
  );
  const isPrefix = (data: Buffer, of: Buffer) => data.equals(of.subarray(0, data.length));
  /** Returns the data that the peer of a socket has received in whole packets. */
  const dataOf = (socket: ScriptedSocket) => {
    const { received: all } = socket;
    const before = socket === sink ? written : Buffer.alloc(0);
    expect(isPrefix(all.subarray(0, before.length), before)).toBe(true);
    const bytes = all.subarray(before.length);
    if (socket === plaintext) return bytes;
    const opener = new Opener(ENGINE, peer.open);
    const data = Buffer.alloc(openedSize(bytes.length));
    const length = opener.open(bytes, data);
    expect(opener.failure).toBeUndefined();
    return data.subarray(0, length);
  };
  const received = () => dataOf(sink);
  /** Waits until the pipe has ended, and checks what holds in all cases. */
  const finished = async () => {
    await eventually(() => outcome !== undefined && source.closed && sink.closed);
    // It holds neither memory nor keys.
    await eventually(() => freeOutputs(engine) === before.free);
    expect(engine.created - engine.destroyed).toBe(before.open);
    const keys = [session.seal.encrypt, session.seal.mac, session.open.encrypt, session.open.mac];
    expect(Buffer.concat(keys).every((byte) => byte === 0)).toBe(true);
    // Each peer has received the start of the data, and all of it if it sees an end.
    expect(isPrefix(received(), transfer.data)).toBe(true);
    expect(isPrefix(dataOf(source), answer ?? Buffer.alloc(0))).toBe(true);
    if (sink.ending === "end") {
      expect(transfer.failure).toBeUndefined();
      expect(received().length).toBe(transfer.data.length);
    }
    if (source.ending === "end") expect(dataOf(source).length).toBe(answer?.length ?? 0);
    if (outcome === "ended") expect([source.ending, sink.ending]).toEqual(["end", "end"]);
    // One converted read was in flight at most, unless the stream had more than a read's worth of buffered data.
    const most = written.length > 0 || (transfer.buffered?.length ?? 0) > MAX_READ_BYTES ? 3 : 1;
    expect(source.maxUnaccepted).toBeLessThanOrEqual(1);
    expect(sink.maxUnaccepted).toBeLessThanOrEqual(most);
    return outcome;
  };
  /** Returns the number of bytes of data that the pipe has read from the source. */
  const converted = () => (direction === "sealing" ? traffic.bytesEncrypted : traffic.bytesDecrypted);
  const expectAll = () => {
    expect(received().length).toBe(transfer.data.length);
  };
  const expectAnswer = () => {
    expect(dataOf(source).length).toBe(answer!.length);
  };
  return { source, sink, transfer, received, converted, expectAll, expectAnswer, finished };
}

/** Lets the event loop run until the condition is true. */
async function eventually(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not true within 20 s: ${condition}`);
    await new Promise(setImmediate);
  }
}

async function iterations(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await new Promise(setImmediate);
}

/** What the kernel does with writes. */
const WRITES: Readonly<Record<string, (index: number) => WriteStep>> = {
  "accepted immediately": () => "now",
  "accepted in part": () => ({ first: 1, restAfter: 2 }),
  "accepted three iterations later": () => 3,
  "accepted now and then": (index) => (index % 2 === 0 ? 2 : "now"),
};

const CELLS = (["sealing", "opening"] as const).flatMap((direction) =>
  (["direct", "ordinary"] as const).flatMap((kind) =>
    [NATIVE, PORTABLE].map((engine): Cell & { name: string } => ({
      direction,
      kind,
      engine,
      name: engine.name,
    })),
  ),
);

describe.each(CELLS)("$direction over $kind sockets with the $name engine", (cell) => {
  const all = transfers(cell.direction);
  const intact = transfers("sealing").map(([name]) => all.find(([other]) => other === name)!);

  // The portable engine differs in the cryptography only.
  const writeCases = Object.entries(WRITES).slice(0, cell.engine === PORTABLE ? 2 : undefined);
  describe.each(writeCases)("writes %s", (_name, writes) => {
    it.each(all)("%s, then an end", async (_pattern, make) => {
      const run = startPipe(cell, make, { then: ["end"], writes, opposite: [20, "end"] });
      const outcome = await run.finished();
      run.expectAll();
      expect(outcome).toBe(run.transfer.failure ?? "ended");
      // An end is passed on only if everything arrived in order; a damaged packet resets both sockets.
      expect(run.sink.ending).toBe(run.transfer.failure === undefined ? "end" : "reset");
      if (run.transfer.failure !== undefined) expect(run.source.ending).toBe("reset");
    });

    it.each(intact)("%s, then a reset", async (_pattern, make) => {
      const run = startPipe(cell, make, { then: [5, "reset"], between: [1], writes });
      expect(await run.finished()).toBe("ERR_SPIPED_BROKEN source");
      expect(run.sink.ending).toBe("reset");
      // What was read before the reset is delivered.
      expect(run.received().length).toBe(run.converted());
    });
  });

  const [several] = all.filter(([name]) => name === "messages of several sizes").map(([, make]) => make);
  const answer = randomBytes(3000);

  it.each([
    ["the source ends first", { then: ["end"], opposite: [40, "end"] }],
    ["the sink ends first", { then: [40, "end"], opposite: ["end"] }],
    ["both end together", { then: ["end"], opposite: [6, "end"] }],
    ["the source ends while a write is pending", { then: ["end"], opposite: [40, "end"], writes: () => 8 }],
  ] satisfies [string, Events][])("both directions end cleanly: %s", async (_name, events) => {
    const run = startPipe(cell, several!, { ...events, answer });
    expect(await run.finished()).toBe("ended");
    run.expectAll();
    run.expectAnswer();
  });

  it("an end without data is passed on", async () => {
    const run = startPipe(cell, () => ({ reads: [], data: Buffer.alloc(0) }), { then: ["end"], answer });
    await eventually(() => run.sink.ending === "end");
    // The other direction is still open.
    await iterations(10);
    run.expectAnswer();
    expect(run.source.ending).toBe("open");
    run.sink.reads.push("end");
    run.sink.continueReading();
    expect(await run.finished()).toBe("ended");
  });

  it.each([0, 1, 5].flatMap((index) => [0, 1, 4].map((failsAfter) => [index, failsAfter] as const)))(
    "write %i fails after %i iterations",
    async (index, failsAfter) => {
      const writes = (write: number) => (write === index ? { failsAfter } : "now");
      const run = startPipe(cell, several!, { then: ["end"], writes });
      expect(await run.finished()).toBe("ERR_SPIPED_BROKEN sink");
      expect(run.source.ending).toBe("reset");
      expect(run.sink.writes).toBe(index + 1);
    },
  );

  it("stops reading while the sink accepts nothing", async () => {
    const run = startPipe(cell, several!, { then: ["end"], writes: () => "never" });
    await eventually(() => run.sink.writes === 1);
    const converted = run.converted();
    await iterations(50);
    expect(run.sink.writes).toBe(1);
    expect(run.converted()).toBe(converted);
    expect(run.sink.ending).toBe("open");
    run.sink.destroy(systemError("ECONNRESET"));
    expect(await run.finished()).toBe("ERR_SPIPED_BROKEN sink");
    expect(run.source.ending).toBe("reset");
  });

  describe.each(["source", "sink", "both"] as const)("%s destroyed", (which) => {
    it.each(Array.from({ length: 16 }, (_, step) => step))("in iteration %i", async (step) => {
      const run = startPipe(cell, several!, { then: ["end"], writes: () => 1, answer, opposite: ["end"] });
      await iterations(step);
      if (which !== "sink") run.source.destroy(systemError("ECONNRESET"));
      if (which !== "source") run.sink.destroy(systemError("ECONNRESET"));
      expect(await run.finished()).toMatch(/^(ended|ERR_SPIPED_BROKEN (source|sink))$/);
    });
  });

  it.each([5000, 300_000])("%i bytes that the source's stream has buffered come first", async (size) => {
    const make = (seal: Seal): Transfer => {
      const [first, second] = [randomBytes(size), randomBytes(2000)];
      const [buffered, read] = cell.direction === "sealing" ? [first, second] : [seal(first), seal(second)];
      return { buffered, reads: [read], data: Buffer.concat([first, second]) };
    };
    const events: Events = { then: ["end"], opposite: [40, "end"], writes: () => 2 };
    const run = startPipe(cell, make, events);
    expect(await run.finished()).toBe("ended");
    run.expectAll();
  });

  it("does not read before the sink has accepted all that was buffered", async () => {
    const size = 2 * MAX_READ_BYTES;
    const make = (seal: Seal): Transfer => {
      const [first, second] = [randomBytes(size), randomBytes(2000)];
      const [buffered, read] = cell.direction === "sealing" ? [first, second] : [seal(first), seal(second)];
      return { buffered, reads: [read], data: Buffer.concat([first, second]) };
    };
    const run = startPipe(cell, make, { then: ["end"], writes: (index) => (index === 0 ? 1 : "never") });
    await eventually(() => run.sink.writes === 2);
    await iterations(20);
    expect(run.converted()).toBe(size);
    run.sink.destroy(systemError("ECONNRESET"));
    expect(await run.finished()).toBe("ERR_SPIPED_BROKEN sink");
  });

  it.each(["now", 3] as const)(
    "what was written to the sink before comes first (accepted: %s)",
    async (step) => {
      const written = Buffer.from("a header or the end of a handshake");
      const writes = (index: number) => (index === 0 ? step : 1);
      const run = startPipe(cell, several!, { then: ["end"], opposite: [40, "end"], writes, written });
      expect(await run.finished()).toBe("ended");
      run.expectAll();
    },
  );

  if (cell.direction === "opening") {
    it("a damaged packet fails at once, not at the end", async () => {
      const [, make] = all.find(([name]) => name === "two packets in one read, the second damaged")!;
      const run = startPipe(cell, make, { then: [] });
      expect(await run.finished()).toBe("ERR_SPIPED_BAD_MAC");
      run.expectAll();
    });

    it("damaged packets use up no credits for long reads", async () => {
      const probe = () => {
        const budget = new ReadBudget({});
        budget.take(20_000);
        budget.end();
        return nextReadSize();
      };
      for (let i = 0; i < 20; i += 1) {
        const run = startPipe(
          cell,
          () => ({ reads: [randomBytes(20_000)], data: Buffer.alloc(0), failure: "ERR_SPIPED_BAD_MAC" }),
          { then: [] },
        );
        expect(await run.finished()).toBe("ERR_SPIPED_BAD_MAC");
      }
      // Other connections use short reads for a while after an interactive one.
      await vi.waitUntil(() => probe() === MAX_READ_BYTES);
    });

    it("a damaged packet in a buffered chunk longer than a read", async () => {
      const make = (): Transfer => ({
        buffered: randomBytes(2 * MAX_READ_BYTES),
        reads: [],
        data: Buffer.alloc(0),
        failure: "ERR_SPIPED_BAD_MAC",
      });
      expect(await startPipe(cell, make, { then: [] }).finished()).toBe("ERR_SPIPED_BAD_MAC");
    });
  }
});

describe.each(CELLS)("any schedule, $direction over $kind sockets with the $name engine", (cell) => {
  const size = fc.oneof(fc.integer({ min: 1, max: 3000 }), fc.integer({ min: 1, max: 70_000 }));
  const writeStep: fc.Arbitrary<WriteStep> = fc.oneof(
    fc.constant<WriteStep>("now"),
    fc.integer({ min: 0, max: 4 }),
    fc.record({ first: fc.integer({ min: 0, max: 1100 }), restAfter: fc.integer({ min: 0, max: 4 }) }),
  );
  const schedule = fc.record({
    sizes: fc.array(size, { maxLength: 6 }),
    /** Where the source's bytes are cut into reads, as fractions. */
    cuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 6 }),
    /** Which byte is damaged, as a fraction, if any. */
    damaged: fc.option(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
    writeSteps: fc.array(writeStep, { minLength: 1, maxLength: 5 }),
    failingWrite: fc.option(fc.integer({ min: 0, max: 6 })),
    waits: fc.integer({ min: 0, max: 3 }),
    last: fc.constantFrom("end" as const, "reset" as const),
    answer: fc.integer({ min: 1, max: 5000 }),
    answerEndsAfter: fc.integer({ min: 0, max: 30 }),
    destroyed: fc.option(
      fc.record({ which: fc.constantFrom("source", "sink"), step: fc.integer({ min: 0, max: 30 }) }),
    ),
  });

  it("delivers the start of the data in order, and an end only after all of it", async () => {
    await fc.assert(
      fc.asyncProperty(schedule, async (plan) => {
        const make = (seal: Seal): Transfer => {
          const parts = plan.sizes.map((length) => randomBytes(length));
          const data = Buffer.concat(parts);
          const bytes = cell.direction === "sealing" ? data : Buffer.concat(parts.map(seal));
          const at = plan.cuts.map((fraction) => Math.floor(fraction * bytes.length)).sort((a, b) => a - b);
          // A read has at most as many bytes as the read buffer.
          for (let end = 100_000; end < bytes.length; end += 100_000) at.push(end);
          const reads = () => cut(bytes, ...at.sort((a, b) => a - b)).filter(({ length }) => length > 0);
          if (plan.damaged === null || bytes.length === 0 || cell.direction === "sealing")
            return { reads: reads(), data };
          const damaged = Math.floor(plan.damaged * bytes.length);
          bytes[damaged]! ^= 1;
          // Not all packets are full: count the data of those before the damaged one.
          const packets = parts.flatMap((part) =>
            Array.from({ length: Math.ceil(part.length / PACKET_DATA_SIZE) }, (_, i) =>
              Math.min(PACKET_DATA_SIZE, part.length - i * PACKET_DATA_SIZE),
            ),
          );
          const good = packets.slice(0, Math.floor(damaged / PACKET_SIZE));
          const length = good.reduce((sum, each) => sum + each, 0);
          return { reads: reads(), data: data.subarray(0, length), failure: "ERR_SPIPED_BAD_MAC" };
        };
        const run = startPipe(cell, make, {
          then: [plan.last],
          between: plan.waits === 0 ? [] : [plan.waits],
          writes: (index) =>
            index === plan.failingWrite
              ? { failsAfter: index % 3 }
              : plan.writeSteps[index % plan.writeSteps.length]!,
          answer: randomBytes(plan.answer),
          opposite: [plan.answerEndsAfter, "end"],
        });
        if (plan.destroyed !== null) {
          await iterations(plan.destroyed.step);
          run[plan.destroyed.which].destroy(systemError("ECONNRESET"));
        }
        const outcome = await run.finished();
        const sinkFailed = plan.failingWrite !== null || plan.destroyed !== null;
        if (outcome === "ERR_SPIPED_BAD_MAC" && !sinkFailed) run.expectAll();
      }),
      { numRuns: cell.engine === PORTABLE ? 25 : 100 },
    );
  });
});
