/**
 * A table of what happens at each point of a transfer: both directions of a pipe, over sockets with direct reads and
 * writes and over ordinary streams, with both engines.
 */
import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { DirectionKeys, Engine } from "../../../src/protocol/engine/engine.ts";
import type { Output } from "../../../src/protocol/engine/output-pool.ts";
import { portableEngine } from "../../../src/protocol/engine/portable.ts";
import { defaultEngine } from "../../../src/protocol/engine/select.ts";
import { SessionKeys } from "../../../src/protocol/key-schedule.ts";
import { Opener } from "../../../src/protocol/opener.ts";
import { openedSize, PACKET_DATA_SIZE, PACKET_SIZE, sealedSize } from "../../../src/protocol/packet.ts";
import { Sealer } from "../../../src/protocol/sealer.ts";
import { pipe, type Traffic } from "../../../src/tunnel/pipe.ts";
import {
  type ReadStep,
  ScriptedDirectSocket,
  type ScriptedKind,
  ScriptedSocket,
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

const NATIVE = new CountingEngine(defaultEngine());
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
  readonly writes?: (index: number) => WriteStep;
  /** What the sink receives: the opposite direction. */
  readonly opposite?: readonly ReadStep[];
}

/** Starts a pipe between two scripted sockets. */
function startPipe({ direction, kind, engine }: Cell, make: (seal: Seal) => Transfer, events: Events) {
  const material = randomBytes(128);
  const session = new SessionKeys(Buffer.from(material), "client");
  const peer = new SessionKeys(material, "server");
  const peerSealer = new Sealer(defaultEngine(), peer.seal);
  const transfer = make((data) => {
    const out = Buffer.alloc(sealedSize(data.length));
    return out.subarray(0, peerSealer.seal(data, out));
  });
  const reads = transfer.reads.flatMap((read, i) => (i === 0 ? [read] : [...(events.between ?? []), read]));
  const create = (script: ConstructorParameters<typeof ScriptedSocket>[0]) =>
    kind === "direct"
      ? new ScriptedDirectSocket(script, engine.workspace.readBuffer)
      : new ScriptedSocket(script);
  const source = create({ reads: [...reads, ...events.then] });
  const sink = create({ reads: events.opposite ?? [], ...(events.writes && { writes: events.writes }) });
  const [plaintext, encrypted] = direction === "sealing" ? [source, sink] : [sink, source];
  const traffic: Traffic = { bytesEncrypted: 0, bytesDecrypted: 0 };
  const before = { free: freeOutputs(engine), open: engine.created - engine.destroyed };
  let outcome: string | undefined;
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
    (error: { code: string; side?: string }) => {
      const failed = error.side === "plaintext" ? plaintext : encrypted;
      outcome =
        error.side === undefined ? error.code : `${error.code} ${failed === source ? "source" : "sink"}`;
    },
  );
  /** Returns the data that the sink's peer has received in whole packets. */
  const received = () => {
    if (direction === "opening") return sink.received;
    const opener = new Opener(defaultEngine(), peer.open);
    const data = Buffer.alloc(openedSize(sink.received.length));
    const length = opener.open(sink.received, data);
    expect(opener.failure).toBeUndefined();
    return data.subarray(0, length);
  };
  const expectPrefix = () => {
    const data = received();
    expect(data.equals(transfer.data.subarray(0, data.length))).toBe(true);
  };
  const expectAll = () => {
    expect(received().equals(transfer.data)).toBe(true);
  };
  /** Waits until the pipe has ended, and checks that it holds nothing any more. */
  const finished = async () => {
    await eventually(() => outcome !== undefined && source.closed && sink.closed);
    await eventually(() => freeOutputs(engine) === before.free);
    expect(engine.created - engine.destroyed).toBe(before.open);
    const keys = [session.seal.encrypt, session.seal.mac, session.open.encrypt, session.open.mac];
    expect(Buffer.concat(keys).every((byte) => byte === 0)).toBe(true);
    expect(source.maxUnaccepted).toBeLessThanOrEqual(1);
    expect(sink.maxUnaccepted).toBeLessThanOrEqual(1);
    expectPrefix();
    return outcome;
  };
  return { source, sink, transfer, received, expectAll, expectPrefix, finished, outcome: () => outcome };
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
  "accepted in the next iteration": () => 0,
  "accepted three iterations later": () => 3,
  "accepted in part": () => ({ first: 1, restAfter: 2 }),
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

  describe.each(Object.entries(WRITES))("writes %s", (_name, writes) => {
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
    });
  });
});
