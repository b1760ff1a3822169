/** A worker's side of the connection limits that the primary counts. */
import { describe, expect, it } from "vitest";
import type { WorkerMessage } from "../../../../src/daemon/workers/messages.ts";
import { RemoteLimits } from "../../../../src/daemon/workers/remote-limits.ts";

function make() {
  const sent: WorkerMessage[] = [];
  const limits = new RemoteLimits((message) => void sent.push(message));
  const granted: string[] = [];
  return { sent, limits, granted, slot: limits.get("a limit") };
}

describe("a limit in a worker", () => {
  it("grants a slot when the primary does", () => {
    const { sent, limits, granted, slot } = make();
    slot.acquire(() => void granted.push("first"));
    slot.acquire(() => void granted.push("second"));
    expect(sent).toEqual([
      { type: "acquire", limit: "a limit", requestId: 1 },
      { type: "acquire", limit: "a limit", requestId: 2 },
    ]);
    expect(slot.waiting).toBe(2);
    limits.acquired(2);
    expect(granted).toEqual(["second"]);
    expect(slot.waiting).toBe(1);
    slot.release();
    expect(sent.at(-1)).toEqual({ type: "release", limit: "a limit" });
  });

  it("cancels a request once, and ignores a grant that crosses the cancellation", () => {
    const { sent, limits, granted, slot } = make();
    const cancel = slot.acquire(() => void granted.push("first"));
    cancel();
    cancel();
    expect(sent.slice(1)).toEqual([{ type: "cancel", limit: "a limit", requestId: 1 }]);
    expect(slot.waiting).toBe(0);
    limits.acquired(1);
    expect(granted).toEqual([]);
    expect(slot.waiting).toBe(0);
  });

  it("does not cancel a granted slot", () => {
    const { sent, limits, granted, slot } = make();
    const cancel = slot.acquire(() => void granted.push("first"));
    limits.acquired(1);
    cancel();
    expect(granted).toEqual(["first"]);
    expect(sent.map(({ type }) => type)).toEqual(["acquire"]);
    expect(slot.waiting).toBe(0);
  });

  it("numbers the requests of all limits of the process", () => {
    const { limits, granted, slot } = make();
    slot.acquire(() => void granted.push("one"));
    limits.get("another").acquire(() => void granted.push("other"));
    limits.acquired(2);
    expect(granted).toEqual(["other"]);
    expect(slot.waiting).toBe(1);
  });
});
