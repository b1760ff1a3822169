/** Repeated failures in the log. */
import { describe, expect, it, vi } from "vitest";
import { FailureLog } from "../../../../src/daemon/observe/failure-log.ts";
import { type CloseReason, closingFor } from "../../../../src/tunnel/close-reason.ts";
import { ConnectionRecord } from "../../../../src/tunnel/connection-event.ts";

describe("the log of failures", () => {
  function startLog() {
    const lines: string[] = [];
    const log = new FailureLog({ warn: (line) => void lines.push(line), info: () => {} });
    return {
      lines,
      flush: () => log.flush(),
      fail: (source: string, reason: CloseReason = "wrong-key", detail?: string) => {
        const client = { number: 1, tunnel: "mail", mode: "decrypt", peer: `${source}:1`, source } as const;
        const record = new ConnectionRecord(client, { failed: (event) => log.failed(event) });
        record.reportClosed(closingFor(reason, detail), "check the key");
      },
    };
  }

  it("counts repeats, reports them at growing intervals, and then forgets them", () => {
    vi.useFakeTimers();
    try {
      const { lines, fail } = startLog();
      for (let i = 0; i < 5; i += 1) fail("192.0.2.1");
      fail("192.0.2.1", "packet-forged", "3");
      fail("192.0.2.1", "packet-forged", "4");
      fail("192.0.2.2");
      const first = "mail: connection 1 from 192.0.2.1:1 failed: handshake: wrong key; check the key";
      expect(lines).toEqual([
        first,
        "mail: connection 1 from 192.0.2.1:1 failed: peer: bad MAC at packet 3; check the key",
        first.replace("2.1", "2.2"),
      ]);
      lines.length = 0;
      vi.advanceTimersByTime(60_000);
      expect(lines).toEqual([
        `${first} (repeats in the last 60 s: 4)`,
        "mail: connection 1 from 192.0.2.1:1 failed: peer: bad MAC at packet 4; check the key (repeats in the last 60 s: 1)",
      ]);
      lines.length = 0;
      fail("192.0.2.1");
      fail("192.0.2.2");
      vi.advanceTimersByTime(119_000);
      expect(lines).toEqual([first.replace("2.1", "2.2")]);
      vi.advanceTimersByTime(1000);
      expect(lines[1]).toBe(`${first} (repeats in the last 120 s: 1)`);
      vi.advanceTimersByTime(240_000);
      fail("192.0.2.1");
      expect(lines.at(-1)).toBe(first);
    } finally {
      vi.useRealTimers();
    }
  });

  it("does not grow with the number of sources, and still logs another kind of failure", () => {
    vi.useFakeTimers();
    try {
      const { lines, fail } = startLog();
      for (let i = 0; i < 10_000; i += 1) fail(`10.0.${i >> 8}.${i & 255}`);
      expect(lines.length).toBe(129);
      lines.length = 0;
      fail("10.9.9.9", "target-refused");
      expect(lines).toEqual(["mail: connection 1 from 10.9.9.9:1 failed: target: refused; check the key"]);
      vi.advanceTimersByTime(60_000);
      expect(lines.slice(1)).toEqual([expect.stringMatching(/ \(repeats in the last 60 s: 9871\)$/)]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("logs pending counts when the daemon stops", () => {
    const { lines, fail, flush } = startLog();
    for (let i = 0; i < 3; i += 1) fail("192.0.2.1");
    lines.length = 0;
    flush();
    flush();
    expect(lines).toEqual([
      "mail: connection 1 from 192.0.2.1:1 failed: handshake: wrong key; check the key (repeats in the last 0 s: 2)",
    ]);
  });
});
