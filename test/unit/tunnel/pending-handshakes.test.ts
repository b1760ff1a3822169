/** The order in which connections are closed when there are too many. */
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DescriptorBudget } from "../../../src/net/descriptors.ts";
import { type PendingConnection, PendingHandshakes } from "../../../src/tunnel/pending-handshakes.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["performance", "setTimeout", "setImmediate"] }));
afterEach(() => void vi.useRealTimers());

class FakeSocket extends EventEmitter {
  readonly remoteAddress: string;
  destroyed = false;

  constructor(remoteAddress: string) {
    super();
    this.remoteAddress = remoteAddress;
  }

  destroy(): void {
    this.destroyed = true;
    this.emit("close");
  }
}

function make(lower: number, upper: number) {
  const all = new PendingHandshakes({ lower, upper }, new DescriptorBudget(() => {}));
  return (address: string): { socket: FakeSocket; pending: PendingConnection } => {
    const socket = new FakeSocket(address);
    return { socket, pending: all.add(socket as unknown as Socket) };
  };
}

/** Runs two iterations of the event loop. */
const runLoop = () => {
  vi.advanceTimersByTime(1);
  vi.advanceTimersByTime(1);
};
const closed = (connections: { socket: FakeSocket }[]) => connections.map(({ socket }) => socket.destroyed);

describe("too many pending connections", () => {
  it("above the lower limit, closes connections that make no progress, those that have sent nothing first", () => {
    const accept = make(2, 10);
    const connections = ["a", "b", "c", "d"].map(accept);
    connections[0]!.pending.recordProgress();
    connections[1]!.pending.recordProgress();
    vi.advanceTimersByTime(400);
    expect(closed(connections)).toEqual([false, false, false, false]);
    vi.advanceTimersByTime(300);
    expect(closed(connections)).toEqual([false, false, true, true]);
  });

  it("at the upper limit, closes one from the source with the most", () => {
    const accept = make(2, 4);
    const connections = ["honest", "flood", "flood", "flood"].map(accept);
    runLoop();
    runLoop();
    connections.push(accept("new"));
    expect(closed(connections)).toEqual([false, true, false, false, false]);
  });

  it("at the upper limit, closes clients that stopped during the handshake before new ones", () => {
    const accept = make(4, 4);
    const connections = ["flood", "flood", "flood"].map(accept);
    for (const { pending } of connections) pending.recordProgress();
    vi.advanceTimersByTime(600);
    connections.push(accept("honest"));
    runLoop();
    connections.push(accept("honest"));
    expect(closed(connections)).toEqual([true, false, false, false, false]);
    vi.advanceTimersByTime(300);
    connections.push(accept("honest"));
    expect(closed(connections)).toEqual([true, false, false, true, false, false]);
  });

  it("at the upper limit, closes the new one if the others have had no time to send anything", () => {
    const accept = make(2, 4);
    const connections = ["a", "a", "a", "a", "a"].map(accept);
    expect(closed(connections)).toEqual([false, false, false, false, true]);
  });

  it("counts a client behind a load balancer by the address in its PROXY header", () => {
    const accept = make(2, 4);
    const connections = ["balancer", "balancer", "balancer", "flood"].map(accept);
    connections[0]!.pending.setAddress("flood");
    connections[1]!.pending.setAddress("honest");
    connections[2]!.pending.setAddress("honest too");
    runLoop();
    runLoop();
    connections.push(accept("new"));
    expect(closed(connections)).toEqual([false, false, false, true, false]);
  });

  it("does not close admitted connections", () => {
    const accept = make(2, 4);
    const connections = ["a", "a", "a", "a"].map(accept);
    for (const { pending } of connections) pending.admit(1);
    runLoop();
    runLoop();
    for (let i = 0; i < 4; i += 1) connections.push(accept("b"));
    expect(closed(connections)).toEqual(connections.map(() => false));
  });
});
