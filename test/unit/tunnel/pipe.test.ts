/** What each end of one socket of a pipe does to the other. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { describe, expect, it, vi } from "vitest";
import { PACKET_SIZE } from "../../../src/protocol/packet.ts";
import { pipe, type Traffic } from "../../../src/tunnel/pipe.ts";
import { type End, makeSession, type SocketKind, socketPair } from "../../support/pairs.ts";
import { cleanUp, until } from "../../support/programs.ts";

/** Starts a pipe between two sockets; the test has the other end of both. */
async function startPipe({
  family = "IPv4",
  kind = "direct",
  idleTimeout = Number.POSITIVE_INFINITY,
}: {
  family?: "IPv4" | "UNIX";
  kind?: SocketKind;
  idleTimeout?: number;
} = {}) {
  const plain = await socketPair(family, kind);
  const wire = await socketPair(family, kind);
  const { engine, session, seal, open } = makeSession();
  const traffic: Traffic = { bytesEncrypted: 0, bytesDecrypted: 0 };
  const start = () =>
    pipe({
      plain: plain.socket,
      wire: wire.socket,
      session,
      engine,
      keepAlive: true,
      idleTimeout,
      traffic,
    }).then(
      () => "ended",
      (error: { code: string; side?: string }) => [error.code, error.side].filter(Boolean).join(" "),
    );
  return { plain, wire, session, seal, open, traffic, start };
}

type Pipe = Awaited<ReturnType<typeof startPipe>>;

/** Waits until a counter no longer changes: there is no event for that. */
async function untilStalled(count: () => number): Promise<void> {
  for (let before = -1; count() === 0 || count() !== before; ) {
    before = count();
    await new Promise((later) => setTimeout(later, 200));
  }
}

const UP = randomBytes(100_000);
const DOWN = randomBytes(100_000);

const sentUp = ({ traffic }: Pipe) => until(() => traffic.bytesEncrypted === UP.length);
const sentDown = ({ traffic }: Pipe) => until(() => traffic.bytesDecrypted === DOWN.length);

/** What the peers of a pipe do. Each action resolves when the pipe has read what the peer sent. */
const ACTIONS = {
  async "plain ends"(both: Pipe) {
    both.plain.peer.socket.end(UP);
    await sentUp(both);
    expect(await both.wire.peer.ended).toBe("end");
  },
  async "wire ends"(both: Pipe) {
    both.wire.peer.socket.end(both.seal(DOWN));
    await sentDown(both);
    expect(await both.plain.peer.ended).toBe("end");
  },
  async "plain resets"(both: Pipe) {
    if (!both.plain.peer.socket.writableEnded) both.plain.peer.socket.write(UP);
    await sentUp(both);
    both.plain.peer.socket.resetAndDestroy();
  },
  async "wire resets"(both: Pipe) {
    if (!both.wire.peer.socket.writableEnded) both.wire.peer.socket.write(both.seal(DOWN));
    await sentDown(both);
    both.wire.peer.socket.resetAndDestroy();
  },
  /** The pipe can't notice the reset of a socket that has ended before it writes to that. */
  async "plain sends"({ plain }: Pipe) {
    plain.peer.socket.write(UP);
  },
  async "wire sends"({ wire, seal }: Pipe) {
    wire.peer.socket.write(seal(DOWN));
  },
  async "wire is truncated"(both: Pipe) {
    both.wire.peer.socket.end(withoutLastByte(both.seal, DOWN));
    await sentDown(both);
  },
  async "wire is damaged"(both: Pipe) {
    both.wire.peer.socket.write(damaged(both.seal, DOWN));
    await sentDown(both);
  },
} as const;
type Action = keyof typeof ACTIONS;

const EXTRA = 500;

/** Returns packets of `data` and one more packet whose last byte is missing. */
function withoutLastByte(seal: Pipe["seal"], data: Buffer): Buffer {
  return Buffer.concat([seal(data), seal(Buffer.alloc(EXTRA)).subarray(0, PACKET_SIZE - 1)]);
}

/** Returns packets of `data`, and another one in which a bit is flipped. */
function damaged(seal: Pipe["seal"], data: Buffer): Buffer {
  const packets = seal(data);
  const extra = seal(Buffer.alloc(EXTRA));
  extra[EXTRA]! ^= 1;
  return Buffer.concat([packets, extra]);
}

/** The events in order, the result of the pipe, and what its peers see at the end. */
const TABLE: [events: Action[], result: string, seen: { plain?: End; wire?: End }][] = [
  [["plain ends", "wire ends"], "ended", { plain: "end", wire: "end" }],
  [["wire ends", "plain ends"], "ended", { plain: "end", wire: "end" }],
  [["plain resets"], "ERR_SPIPED_BROKEN plain", { wire: "reset" }],
  [["wire resets"], "ERR_SPIPED_BROKEN wire", { plain: "reset" }],
  [["plain ends", "plain resets", "wire sends"], "ERR_SPIPED_BROKEN plain", { wire: "end" }],
  [["plain ends", "wire resets"], "ERR_SPIPED_BROKEN wire", { plain: "reset" }],
  [["wire ends", "plain resets"], "ERR_SPIPED_BROKEN plain", { wire: "reset" }],
  [["wire ends", "wire resets", "plain sends"], "ERR_SPIPED_BROKEN wire", { plain: "end" }],
  [["wire is truncated"], "ERR_SPIPED_TRUNCATED", { plain: "reset", wire: "reset" }],
  [["plain ends", "wire is truncated"], "ERR_SPIPED_TRUNCATED", { plain: "reset", wire: "end" }],
  [["wire is damaged"], "ERR_SPIPED_BAD_MAC", { plain: "reset", wire: "reset" }],
  [["plain ends", "wire is damaged"], "ERR_SPIPED_BAD_MAC", { plain: "reset", wire: "end" }],
];

describe.each(["direct", "ordinary"] as const)("a pipe between %s sockets", (kind) => {
  it.each(TABLE)("of which %j: %s, and the peers see %j", async (events, result, seen) => {
    const both = await startPipe({ kind });
    const { plain, wire, open, start } = both;
    const running = start();
    for (const event of events) await ACTIONS[event](both);
    expect(await running).toBe(result);
    for (const side of ["plain", "wire"] as const) {
      if (seen[side] !== undefined) expect(await both[side].peer.ended).toBe(seen[side]);
      expect(both[side].socket.destroyed).toBe(true);
    }
    // Everything sent before is delivered, whatever came then.
    if (seen.wire !== undefined && events.some((event) => event.startsWith("plain")))
      expect(open(wire.peer.received()).equals(UP)).toBe(true);
    if (seen.plain !== undefined && events.some((event) => event.startsWith("wire")))
      expect(plain.peer.received().equals(DOWN)).toBe(true);
  });

  it("transfers data in the direction that is still open", async () => {
    for (const side of ["plain", "wire"] as const) {
      const { plain, wire, seal, open, start } = await startPipe({ kind });
      const running = start();
      if (side === "plain") {
        plain.peer.socket.end();
        expect(await wire.peer.ended).toBe("end");
        for (const word of ["still ", "open"]) wire.peer.socket.write(seal(word));
        await until(() => String(plain.peer.received()) === "still open");
        wire.peer.socket.end();
      } else {
        wire.peer.socket.end();
        expect(await plain.peer.ended).toBe("end");
        for (const word of ["still ", "open"]) plain.peer.socket.write(word);
        plain.peer.socket.end();
      }
      expect(await running).toBe("ended");
      if (side === "wire") {
        await wire.peer.ended;
        expect(String(open(wire.peer.received()))).toBe("still open");
      }
    }
  });

  it.each(["plain", "wire"] as const)(
    "with a %s socket that was closed before resets the other one",
    async (side) => {
      const both = await startPipe({ kind });
      const { socket } = both[side];
      const closed = once(socket, "close");
      socket.destroy();
      await closed;
      expect(await both.start()).toBe(`ERR_SPIPED_BROKEN ${side}`);
      const other = side === "plain" ? both.wire : both.plain;
      expect(await other.peer.ended).toBe("reset");
    },
  );

  it("with a client that has ended before transfers its data", async () => {
    const { plain, wire, open, start } = await startPipe({ kind });
    plain.peer.socket.end("early");
    await until(() => plain.peer.socket.writableFinished);
    const running = start();
    expect(await wire.peer.ended).toBe("end");
    expect(String(open(wire.peer.received()))).toBe("early");
    wire.peer.socket.end();
    expect(await running).toBe("ended");
  });

  it("with a client whose end has been read before ends the other socket", async () => {
    const { plain, wire, start } = await startPipe({ kind });
    plain.peer.socket.end();
    await once(plain.socket.resume(), "end");
    plain.socket.pause();
    const running = start();
    expect(await wire.peer.ended).toBe("end");
    wire.peer.socket.end();
    expect(await running).toBe("ended");
  });
});

describe("a pipe between UNIX sockets", () => {
  it.each([
    [["plain ends", "wire ends"], "ended", { plain: "end", wire: "end" }],
    [["wire ends", "plain ends"], "ended", { plain: "end", wire: "end" }],
    [["wire is truncated"], "ERR_SPIPED_TRUNCATED", { plain: "end" }],
    [["wire is damaged"], "ERR_SPIPED_BAD_MAC", { plain: "end" }],
  ] as [Action[], string, { plain: End; wire?: End }][])(
    "of which %j: %s, and the peers see %j, since they have no reset",
    async (events, result, seen) => {
      const both = await startPipe({ family: "UNIX" });
      const running = both.start();
      for (const event of events) await ACTIONS[event](both);
      expect(await running).toBe(result);
      expect(await both.plain.peer.ended).toBe(seen.plain);
      expect(both.plain.peer.received().equals(DOWN)).toBe(true);
      if (seen.wire === undefined) return;
      expect(await both.wire.peer.ended).toBe(seen.wire);
      expect(both.open(both.wire.peer.received()).equals(UP)).toBe(true);
    },
  );
});

describe("a pipe", () => {
  it("overwrites the session keys that it got", async () => {
    const { plain, wire, session, start } = await startPipe();
    expect(session.seal.encrypt.some((byte) => byte !== 0)).toBe(true);
    const running = start();
    for (const { encrypt, mac } of [session.seal, session.open])
      expect([...encrypt, ...mac].every((byte) => byte === 0)).toBe(true);
    for (const { peer } of [plain, wire]) peer.socket.end();
    expect(await running).toBe("ended");
  });

  it("resets both sockets when neither direction transfers data for the idle timeout", async () => {
    const { plain, wire, seal, start } = await startPipe({ idleTimeout: 1000 });
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    cleanUp(() => void vi.useRealTimers());
    /** Node takes a reset for EOF if it reads it together with data, so the data must be read before. */
    const untilReceived = async ({ peer }: typeof plain) => {
      while (peer.received().length === 0) await new Promise(setImmediate);
    };
    const running = start();
    vi.advanceTimersByTime(900);
    plain.peer.socket.write("x");
    await untilReceived(wire);
    vi.advanceTimersByTime(900);
    wire.peer.socket.write(seal("x"));
    await untilReceived(plain);
    vi.advanceTimersByTime(900);
    expect([plain.socket.destroyed, wire.socket.destroyed]).toEqual([false, false]);
    vi.advanceTimersByTime(300);
    expect(await running).toBe("ERR_SPIPED_IDLE");
    expect(await Promise.all([plain.peer.ended, wire.peer.ended])).toEqual(["reset", "reset"]);
  });

  it("does not read a sender whose receiver is slow, and delivers everything later", async () => {
    const { plain, wire, seal, traffic, start } = await startPipe();
    const running = start();
    plain.peer.socket.pause();
    const data = randomBytes(16 << 20);
    wire.peer.socket.end(seal(data));
    await untilStalled(() => traffic.bytesDecrypted);
    expect(traffic.bytesDecrypted).toBeLessThan(data.length);
    expect(plain.socket.writableLength).toBeLessThanOrEqual(128 * 1024);
    plain.peer.socket.resume();
    expect(await plain.peer.ended).toBe("end");
    expect(plain.peer.received().equals(data)).toBe(true);
    plain.peer.socket.end();
    expect(await running).toBe("ended");
  });
});
