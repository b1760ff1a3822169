/** Connection limits by tunnel and by key, whose counts outlive a reload. */
import { describe, expect, it } from "vitest";
import { Limits, limitId } from "../../../src/daemon/limits.ts";

function make() {
  const warnings: string[] = [];
  const limits = new Limits({ warn: (message) => void warnings.push(message), info: () => {} });
  return { limits, warnings };
}

/** Requests a slot; returns whether it was granted. */
function take(limit: { acquire(onAcquired: () => void): () => void }): boolean {
  let granted = false;
  limit.acquire(() => {
    granted = true;
  });
  return granted;
}

describe("the limits of a daemon", () => {
  it("are separate for each tunnel and each key", () => {
    const { limits } = make();
    const all = [
      [undefined, undefined],
      ["mail", undefined],
      ["mail", "alice"],
      ["mail", "bob"],
      ["web", "alice"],
      [undefined, "alice"],
    ] as const;
    for (const [tunnel, key] of all) expect(take(limits.get(tunnel, key, 1))).toBe(true);
    for (const [tunnel, key] of all) expect(take(limits.get(tunnel, key, 1))).toBe(false);
  });

  it("keep their count when a reload changes the maximum", () => {
    const { limits } = make();
    const before = limits.get("mail", "alice", 2);
    expect([take(before), take(before)]).toEqual([true, true]);
    expect(take(limits.get("mail", "alice", 3))).toBe(true);
    expect(take(limits.get("mail", "alice", 3))).toBe(false);
    before.release();
    expect(limits.get("mail", "alice", 1)).toMatchObject({ limit: 1, waiting: 0 });
  });

  it("are logged when they are reached, with tunnel, key and the current maximum", () => {
    const { limits, warnings } = make();
    take(limits.get(undefined, undefined, 1));
    take(limits.get("mail", undefined, 1));
    take(limits.get("mail", "alice", 5));
    take(limits.get("mail", "alice", 2));
    expect(warnings).toEqual([
      "Maximum number of connections (1) reached",
      "mail: Maximum number of connections (1) reached",
      "mail: Maximum number of connections (2) for key alice reached",
    ]);
  });

  it("have IDs under which workers request slots", () => {
    const { limits } = make();
    const limit = limits.get("mail", "alice", 1);
    expect(limits.byId(limitId("mail", "alice"))).toBe(limit);
    expect(limits.byId(limitId("mail", undefined))).toBeUndefined();
    const ids = [
      limitId("a", undefined),
      limitId(undefined, "a"),
      limitId("a", "bc"),
      limitId("ab", "c"),
      limitId('a","bc', undefined),
      limitId("null", undefined),
      limitId(undefined, undefined),
    ];
    expect(new Set(ids).size).toBe(ids.length);
  });
});
