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
  const plaintext = await socketPair(family, kind);
  const encrypted = await socketPair(family, kind);
  const { engine, session, seal, open } = makeSession();
  const traffic: Traffic = { bytesEncrypted: 0, bytesDecrypted: 0 };
  const start = () =>
    pipe({
      plaintext: plaintext.socket,
      encrypted: encrypted.socket,
      session,
      engine,
      keepAlive: true,
      idleTimeout,
      traffic,
    }).then(
      () => "ended",
      (error: { code: string; side?: string }) => [error.code, error.side].filter(Boolean).join(" "),
    );
  return { plaintext, encrypted, session, seal, open, traffic, start };
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
  async "plaintext ends"(both: Pipe) {
    both.plaintext.peer.socket.end(UP);
    await sentUp(both);
    expect(await both.encrypted.peer.ended).toBe("end");
  },
  async "encrypted ends"(both: Pipe) {
    both.encrypted.peer.socket.end(both.seal(DOWN));
    await sentDown(both);
    expect(await both.plaintext.peer.ended).toBe("end");
  },
  async "plaintext resets"(both: Pipe) {
    if (!both.plaintext.peer.socket.writableEnded) both.plaintext.peer.socket.write(UP);
    await sentUp(both);
    both.plaintext.peer.socket.resetAndDestroy();
  },
  async "encrypted resets"(both: Pipe) {
    if (!both.encrypted.peer.socket.writableEnded) both.encrypted.peer.socket.write(both.seal(DOWN));
    await sentDown(both);
    both.encrypted.peer.socket.resetAndDestroy();
  },
  /** The pipe can't notice the reset of a socket that has ended before it writes to that. */
  async "plaintext sends"({ plaintext }: Pipe) {
    plaintext.peer.socket.write(UP);
  },
  async "encrypted sends"({ encrypted, seal }: Pipe) {
    encrypted.peer.socket.write(seal(DOWN));
  },
  async "encrypted is truncated"(both: Pipe) {
    both.encrypted.peer.socket.end(withoutLastByte(both.seal, DOWN));
    await sentDown(both);
  },
  async "encrypted is damaged"(both: Pipe) {
    both.encrypted.peer.socket.write(damaged(both.seal, DOWN));
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
const TABLE: [events: Action[], result: string, seen: { plaintext?: End; encrypted?: End }][] = [
  [["plaintext ends", "encrypted ends"], "ended", { plaintext: "end", encrypted: "end" }],
  [["encrypted ends", "plaintext ends"], "ended", { plaintext: "end", encrypted: "end" }],
  [["plaintext resets"], "ERR_SPIPED_BROKEN plaintext", { encrypted: "reset" }],
  [["encrypted resets"], "ERR_SPIPED_BROKEN encrypted", { plaintext: "reset" }],
  [
    ["plaintext ends", "plaintext resets", "encrypted sends"],
    "ERR_SPIPED_BROKEN plaintext",
    { encrypted: "end" },
  ],
  [["plaintext ends", "encrypted resets"], "ERR_SPIPED_BROKEN encrypted", { plaintext: "reset" }],
  [["encrypted ends", "plaintext resets"], "ERR_SPIPED_BROKEN plaintext", { encrypted: "reset" }],
  [
    ["encrypted ends", "encrypted resets", "plaintext sends"],
    "ERR_SPIPED_BROKEN encrypted",
    { plaintext: "end" },
  ],
  [["encrypted is truncated"], "ERR_SPIPED_TRUNCATED", { plaintext: "reset", encrypted: "reset" }],
  [
    ["plaintext ends", "encrypted is truncated"],
    "ERR_SPIPED_TRUNCATED",
    { plaintext: "reset", encrypted: "end" },
  ],
  [["encrypted is damaged"], "ERR_SPIPED_BAD_MAC", { plaintext: "reset", encrypted: "reset" }],
  [
    ["plaintext ends", "encrypted is damaged"],
    "ERR_SPIPED_BAD_MAC",
    { plaintext: "reset", encrypted: "end" },
  ],
];

describe.each(["direct", "ordinary"] as const)("a pipe between %s sockets", (kind) => {
  it.each(TABLE)("of which %j: %s, and the peers see %j", async (events, result, seen) => {
    const both = await startPipe({ kind });
    const { plaintext, encrypted, open, start } = both;
    const running = start();
    for (const event of events) await ACTIONS[event](both);
    expect(await running).toBe(result);
    for (const side of ["plaintext", "encrypted"] as const) {
      if (seen[side] !== undefined) expect(await both[side].peer.ended).toBe(seen[side]);
      expect(both[side].socket.destroyed).toBe(true);
    }
    // Everything sent before is delivered, whatever came then.
    if (seen.encrypted !== undefined && events.some((event) => event.startsWith("plaintext")))
      expect(open(encrypted.peer.received()).equals(UP)).toBe(true);
    if (seen.plaintext !== undefined && events.some((event) => event.startsWith("encrypted")))
      expect(plaintext.peer.received().equals(DOWN)).toBe(true);
  });

  it("transfers data in the direction that is still open", async () => {
    for (const side of ["plaintext", "encrypted"] as const) {
      const { plaintext, encrypted, seal, open, start } = await startPipe({ kind });
      const running = start();
      if (side === "plaintext") {
        plaintext.peer.socket.end();
        expect(await encrypted.peer.ended).toBe("end");
        for (const word of ["still ", "open"]) encrypted.peer.socket.write(seal(word));
        await until(() => String(plaintext.peer.received()) === "still open");
        encrypted.peer.socket.end();
      } else {
        encrypted.peer.socket.end();
        expect(await plaintext.peer.ended).toBe("end");
        for (const word of ["still ", "open"]) plaintext.peer.socket.write(word);
        plaintext.peer.socket.end();
      }
      expect(await running).toBe("ended");
      if (side === "encrypted") {
        await encrypted.peer.ended;
        expect(String(open(encrypted.peer.received()))).toBe("still open");
      }
    }
  });

  it.each(["plaintext", "encrypted"] as const)(
    "with a %s socket that was closed before resets the other one",
    async (side) => {
      const both = await startPipe({ kind });
      const { socket } = both[side];
      const closed = once(socket, "close");
      socket.destroy();
      await closed;
      expect(await both.start()).toBe(`ERR_SPIPED_BROKEN ${side}`);
      const other = side === "plaintext" ? both.encrypted : both.plaintext;
      expect(await other.peer.ended).toBe("reset");
    },
  );

  it("with a client that has ended before transfers its data", async () => {
    const { plaintext, encrypted, open, start } = await startPipe({ kind });
    plaintext.peer.socket.end("early");
    await until(() => plaintext.peer.socket.writableFinished);
    const running = start();
    expect(await encrypted.peer.ended).toBe("end");
    expect(String(open(encrypted.peer.received()))).toBe("early");
    encrypted.peer.socket.end();
    expect(await running).toBe("ended");
  });

  it("with a client whose end has been read before ends the other socket", async () => {
    const { plaintext, encrypted, start } = await startPipe({ kind });
    plaintext.peer.socket.end();
    await once(plaintext.socket.resume(), "end");
    plaintext.socket.pause();
    const running = start();
    expect(await encrypted.peer.ended).toBe("end");
    encrypted.peer.socket.end();
    expect(await running).toBe("ended");
  });
});

describe("a pipe between UNIX sockets", () => {
  it.each([
    [["plaintext ends", "encrypted ends"], "ended", { plaintext: "end", encrypted: "end" }],
    [["encrypted ends", "plaintext ends"], "ended", { plaintext: "end", encrypted: "end" }],
    [["encrypted is truncated"], "ERR_SPIPED_TRUNCATED", { plaintext: "end" }],
    [["encrypted is damaged"], "ERR_SPIPED_BAD_MAC", { plaintext: "end" }],
  ] as [Action[], string, { plaintext: End; encrypted?: End }][])(
    "of which %j: %s, and the peers see %j, since they have no reset",
    async (events, result, seen) => {
      const both = await startPipe({ family: "UNIX" });
      const running = both.start();
      for (const event of events) await ACTIONS[event](both);
      expect(await running).toBe(result);
      expect(await both.plaintext.peer.ended).toBe(seen.plaintext);
      expect(both.plaintext.peer.received().equals(DOWN)).toBe(true);
      if (seen.encrypted === undefined) return;
      expect(await both.encrypted.peer.ended).toBe(seen.encrypted);
      expect(both.open(both.encrypted.peer.received()).equals(UP)).toBe(true);
    },
  );
});

describe("a pipe", () => {
  it("overwrites the session keys that it got", async () => {
    const { plaintext, encrypted, session, start } = await startPipe();
    expect(session.seal.encrypt.some((byte) => byte !== 0)).toBe(true);
    const running = start();
    for (const { encrypt, mac } of [session.seal, session.open])
      expect([...encrypt, ...mac].every((byte) => byte === 0)).toBe(true);
    for (const { peer } of [plaintext, encrypted]) peer.socket.end();
    expect(await running).toBe("ended");
  });

  it("resets both sockets when neither direction transfers data for the idle timeout", async () => {
    const { plaintext, encrypted, seal, start } = await startPipe({ idleTimeout: 1000 });
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    cleanUp(() => void vi.useRealTimers());
    /** Node takes a reset for EOF if it reads it together with data, so the data must be read before. */
    const untilReceived = async ({ peer }: typeof plaintext) => {
      while (peer.received().length === 0) await new Promise(setImmediate);
    };
    const running = start();
    vi.advanceTimersByTime(900);
    plaintext.peer.socket.write("x");
    await untilReceived(encrypted);
    vi.advanceTimersByTime(900);
    encrypted.peer.socket.write(seal("x"));
    await untilReceived(plaintext);
    vi.advanceTimersByTime(900);
    expect([plaintext.socket.destroyed, encrypted.socket.destroyed]).toEqual([false, false]);
    vi.advanceTimersByTime(300);
    expect(await running).toBe("ERR_SPIPED_IDLE");
    expect(await Promise.all([plaintext.peer.ended, encrypted.peer.ended])).toEqual(["reset", "reset"]);
  });

  it("does not read a sender whose receiver is slow, and delivers everything later", async () => {
    const { plaintext, encrypted, seal, traffic, start } = await startPipe();
    const running = start();
    plaintext.peer.socket.pause();
    const data = randomBytes(16 << 20);
    encrypted.peer.socket.end(seal(data));
    await untilStalled(() => traffic.bytesDecrypted);
    expect(traffic.bytesDecrypted).toBeLessThan(data.length);
    expect(plaintext.socket.writableLength).toBeLessThanOrEqual(128 * 1024);
    plaintext.peer.socket.resume();
    expect(await plaintext.peer.ended).toBe("end");
    expect(plaintext.peer.received().equals(data)).toBe(true);
    plaintext.peer.socket.end();
    expect(await running).toBe("ended");
  });
});
