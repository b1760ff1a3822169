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

function make(lower: number, upper: number, budget = new DescriptorBudget(() => {})) {
  const all = new PendingHandshakes({ lower, upper }, budget);
  return (address: string): { socket: FakeSocket; pending: PendingConnection } => {
    const socket = new FakeSocket(address);
    return { socket, pending: all.add(socket as unknown as Socket) };
  };
}

/** Returns the budget of a process that has `usable` descriptors for connections, and the number of reports. */
function makeBudget(usable: number) {
  const budget = new DescriptorBudget(() => {
    reports += 1;
  });
  let reports = 0;
  Object.defineProperty(budget, "usable", { value: usable });
  return { budget, reports: () => reports };
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

describe("the order of eviction", () => {
  it("is by the time without progress, relative to what each stage may take", () => {
    const accept = make(3, 3);
    const started = accept("a");
    started.pending.recordProgress();
    vi.advanceTimersByTime(2000);
    const silent = accept("b");
    vi.advanceTimersByTime(300);
    const connections = [started, silent, accept("c"), accept("d")];
    // 2300 of 3000 ms are more than 300 of 500 ms.
    expect(closed(connections)).toEqual([true, false, false, false]);
  });

  it("prefers a source with many connections only among the 32 that stall longest", () => {
    const accept = make(100, 100);
    const connections = Array.from({ length: 32 }, (_, i) => accept(`client ${i}`));
    for (let i = 0; i < 68; i += 1) connections.push(accept("flood"));
    runLoop();
    runLoop();
    connections.push(accept("new"));
    expect(closed(connections).indexOf(true)).toBe(0);
    connections.push(accept("new"));
    expect(closed(connections).indexOf(true, 1)).toBe(32);
  });

  it("counts the connections of an IPv6 network together", () => {
    const accept = make(4, 4);
    const addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
    const connections = addresses.map(accept);
    runLoop();
    runLoop();
    connections.push(accept("192.0.2.3"));
    expect(closed(connections)).toEqual([false, false, true, false, false]);
  });

  it("forgets connections that close", () => {
    const accept = make(2, 3);
    const connections = ["flood", "flood", "honest"].map(accept);
    runLoop();
    runLoop();
    connections[0]!.socket.destroy();
    connections[1]!.socket.destroy();
    // Progress after that is too late.
    connections[1]!.pending.recordProgress();
    connections.push(accept("honest"), accept("new"));
    expect(closed(connections)).toEqual([true, true, false, false, false]);
    connections.push(accept("new"));
    expect(closed(connections)).toEqual([true, true, true, false, false, false]);
  });
});

describe("a process with few descriptors", () => {
  it("uses half of them for pending connections", () => {
    const { budget, reports } = makeBudget(8);
    const accept = make(1024, 4096, budget);
    const connections = ["a", "b", "c", "d"].map(accept);
    runLoop();
    runLoop();
    expect(closed(connections)).toEqual([false, false, false, false]);
    expect(reports()).toBe(0);
    connections.push(accept("e"));
    expect(closed(connections)).toEqual([true, false, false, false, false]);
    expect(reports()).toBe(1);
  });

  it("closes pending connections in favor of admitted ones, and fails an admission when none is left", () => {
    const { budget } = makeBudget(8);
    const accept = make(1024, 4096, budget);
    const first = ["a", "b", "c", "d"].map(accept);
    runLoop();
    runLoop();
    // One descriptor each, and two more for each that is admitted: 2 * 3 + 2.
    first[0]!.pending.admit(2);
    first[1]!.pending.admit(2);
    expect(closed(first)).toEqual([false, false, false, false]);
    first[2]!.pending.admit(1);
    expect(closed(first)).toEqual([false, false, false, true]);
    const second = accept("e");
    expect(second.socket.destroyed).toBe(true);
    first[0]!.socket.destroy();
    const third = accept("f");
    expect(() => third.pending.admit(3)).toThrow(expect.objectContaining({ code: "ERR_SPIPED_DESCRIPTORS" }));
    expect(closed([...first, third])).toEqual([true, false, false, true, true]);
  });

  it("releases all descriptors of a connection when that closes", () => {
    const { budget } = makeBudget(8);
    const accept = make(1024, 4096, budget);
    for (let i = 0; i < 20; i += 1) {
      const { socket, pending } = accept("a");
      pending.admit(7);
      expect(socket.destroyed).toBe(false);
      expect(budget.has(1)).toBe(false);
      socket.destroy();
      expect(budget.has(8)).toBe(true);
    }
  });

  it("admits nothing for a connection that has closed", () => {
    const { budget } = makeBudget(8);
    const { socket, pending } = make(1024, 4096, budget)("a");
    socket.destroy();
    pending.admit(8);
    expect(budget.has(8)).toBe(true);
  });
});
