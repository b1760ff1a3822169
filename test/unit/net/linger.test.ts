/** A reset that follows everything that was written before. */
import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { MAX_READ_BYTES } from "../../../src/net/fairness.ts";
import { resetWhenDelivered } from "../../../src/net/linger.ts";
import { type SocketKind, socketPair } from "../../support/pairs.ts";
import { until } from "../../support/programs.ts";

/** More than the kernel buffers. */
const DATA = randomBytes(8 << 20);
/** Less than the kernel buffers, and more than it sends to a peer that does not read. */
const BUFFERED = DATA.subarray(0, 1 << 20);

/** Writes data to a socket whose peer does not read yet. */
async function startLingering(family: "IPv4" | "UNIX", kind: SocketKind, data = DATA) {
  const { socket, peer } = await socketPair(family, kind);
  peer.socket.pause();
  socket.write(data);
  let closed = 0;
  resetWhenDelivered(socket, () => {
    closed += 1;
  });
  return { socket, peer, closed: () => closed };
}

describe.each<SocketKind>(["direct", "ordinary"])("a lost connection (%s)", (kind) => {
  it.each([
    ["IPv4", "reset"],
    ["UNIX", "end"],
  ] as const)("over %s is passed on when a slow peer has everything: %s", async (family, seen) => {
    const { socket, peer, closed } = await startLingering(family, kind);
    // Longer than the interval at which delivery is checked.
    await new Promise((later) => setTimeout(later, 300));
    expect(socket.destroyed).toBe(false);
    peer.socket.resume();
    expect(await peer.ended).toBe(seen);
    expect(peer.received().equals(DATA)).toBe(true);
    await until(() => closed() === 1);
    expect(socket.destroyed).toBe(true);
  });

  it("does not hold up others while one peer does not read", async () => {
    const slow = await startLingering("IPv4", kind);
    const fast = await startLingering("IPv4", kind);
    fast.peer.socket.resume();
    expect(await fast.peer.ended).toBe("reset");
    expect(fast.peer.received().equals(DATA)).toBe(true);
    expect(slow.closed()).toBe(0);
  });

  it("discards what the peer still sends", async () => {
    const { peer, closed } = await startLingering("IPv4", kind);
    await new Promise<void>((written) => peer.socket.write(Buffer.alloc(16 << 20), () => written()));
    expect(closed()).toBe(0);
    peer.socket.resume();
    await until(() => closed() === 1);
    expect(peer.received().equals(DATA)).toBe(true);
  });

  it.each([1, 20])("reads little of what %i peers send per event-loop iteration", async (count) => {
    const all = await Promise.all(
      Array.from({ length: count }, () => startLingering("IPv4", kind, BUFFERED)),
    );
    for (const { peer } of all) peer.socket.write(DATA);
    const sum = () => all.reduce((total, { socket }) => total + socket.bytesRead, 0);
    let read = 0;
    let largest = 0;
    while (read < count * DATA.length && all.every(({ closed }) => closed() === 0)) {
      await new Promise(setImmediate);
      largest = Math.max(largest, sum() - read);
      read = sum();
    }
    expect(read).toBe(count * DATA.length);
    expect(largest).toBeLessThanOrEqual(8 * MAX_READ_BYTES);
  });

  it("of a socket that is closed already, or closes meanwhile, is reported once", async () => {
    const { socket } = await socketPair("IPv4", kind);
    socket.destroy();
    let closed = 0;
    resetWhenDelivered(socket, () => {
      closed += 1;
    });
    expect(closed).toBe(1);
    const lingering = await startLingering("IPv4", kind);
    lingering.socket.destroy();
    await until(() => lingering.closed() === 1);
  });
});

it("a lost connection is passed on when the peer has what the kernel has buffered", async () => {
  const { socket, peer } = await startLingering("IPv4", "direct", BUFFERED);
  // Longer than the time after which it is passed on if delivery can't be checked.
  await new Promise((later) => setTimeout(later, 1500));
  expect(socket.writableLength).toBe(0);
  expect(socket.destroyed).toBe(false);
  peer.socket.resume();
  expect(await peer.ended).toBe("reset");
  expect(peer.received().equals(BUFFERED)).toBe(true);
});
