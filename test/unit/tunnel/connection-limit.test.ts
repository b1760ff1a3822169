/** The slots of `-n`. */
import { describe, expect, it } from "vitest";
import { ConnectionLimit } from "../../../src/tunnel/connection-limit.ts";

/** Creates a limit, and a function that requests slots by name. */
function make(limit: number) {
  let reports = 0;
  const granted: string[] = [];
  const slots = new ConnectionLimit(limit, () => {
    reports += 1;
  });
  return {
    slots,
    granted,
    reports: () => reports,
    acquire: (name: string) => slots.acquire(() => void granted.push(name)),
  };
}

describe("a connection limit", () => {
  it("grants free slots immediately, and queues further connections in order", () => {
    const { slots, granted, acquire } = make(2);
    for (const name of ["a", "b", "c", "d"]) acquire(name);
    expect(granted).toEqual(["a", "b"]);
    expect(slots.waiting).toBe(2);
    slots.release();
    expect(granted).toEqual(["a", "b", "c"]);
    slots.release();
    expect(granted).toEqual(["a", "b", "c", "d"]);
    expect(slots.waiting).toBe(0);
  });

  it("keeps a released slot for the next connection if none is queued", () => {
    const { slots, granted, acquire } = make(1);
    acquire("a");
    slots.release();
    acquire("b");
    acquire("c");
    expect(granted).toEqual(["a", "b"]);
  });

  it("skips a cancelled request, and ignores the cancellation of a granted one", () => {
    const { slots, granted, acquire } = make(1);
    const cancelFirst = acquire("a");
    const cancelSecond = acquire("b");
    acquire("c");
    cancelFirst();
    cancelSecond();
    cancelSecond();
    expect(slots.waiting).toBe(1);
    slots.release();
    expect(granted).toEqual(["a", "c"]);
    acquire("d");
    expect(granted).toEqual(["a", "c"]);
  });

  it("reports each time that the last free slot is taken", () => {
    const { slots, reports, acquire } = make(2);
    acquire("a");
    expect(reports()).toBe(0);
    acquire("b");
    acquire("c");
    expect(reports()).toBe(1);
    slots.release();
    expect(reports()).toBe(2);
    slots.release();
    slots.release();
    expect(reports()).toBe(2);
    acquire("d");
    acquire("e");
    expect(reports()).toBe(3);
  });

  it("that is raised grants the new slots", () => {
    const { slots, granted, acquire } = make(1);
    for (const name of ["a", "b", "c", "d"]) acquire(name);
    slots.setLimit(3);
    expect(granted).toEqual(["a", "b", "c"]);
    expect(slots).toMatchObject({ limit: 3, waiting: 1 });
    slots.setLimit(Number.POSITIVE_INFINITY);
    expect(granted).toEqual(["a", "b", "c", "d"]);
  });

  it("that is lowered grants no slot until enough are released", () => {
    const { slots, granted, acquire } = make(3);
    for (const name of ["a", "b", "c"]) acquire(name);
    slots.setLimit(1);
    acquire("d");
    slots.release();
    slots.release();
    expect(granted).toEqual(["a", "b", "c"]);
    slots.release();
    expect(granted).toEqual(["a", "b", "c", "d"]);
  });
});
