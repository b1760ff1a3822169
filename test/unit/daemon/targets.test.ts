/** Selection among the targets of a tunnel. */
import { describe, expect, it, vi } from "vitest";
import { Target } from "../../../src/daemon/target.ts";
import { Targets } from "../../../src/daemon/targets.ts";
import { ConnectError } from "../../../src/net/connect-error.ts";
import { HandshakeError } from "../../../src/protocol/protocol-error.ts";
import { until } from "../../support/programs.ts";

/** Returns a target with a UNIX address that does not exist. */
const target = (text: string) => new Target({ kind: "unix", path: text, text }, [], () => {});

describe("a failover target", () => {
  it("is preferred until the target's cooldown is over, but a target in cooldown is tried if all others fail", async () => {
    const [a, b] = [target("/a"), target("/b")];
    const targets = new Targets([a, b]);
    const tried: string[] = [];
    const connect = (dead: Target[]) => async (candidate: Target) => {
      tried.push(candidate.address.text);
      if (dead.includes(candidate)) throw new ConnectError("ERR_SPIPED_CONNECT", "dead");
      return candidate;
    };
    expect(await targets.attempt(connect([a]))).toBe(b);
    expect(await targets.attempt(connect([]))).toBe(b);
    await expect(targets.attempt(connect([a, b]))).rejects.toThrow("dead");
    expect(await targets.attempt(connect([]))).toBe(a);
    expect(tried).toEqual(["/a", "/b", "/b", "/b", "/a", "/a"]);
  });

  it("is probed with one connection for all callers, and probe() resolves before a connect that hangs", async () => {
    const targets = new Targets([target("/a")]);
    const hang = () => new Promise<never>(() => {});
    expect(await targets.probe(hang)).toBe(true);
    await expect(
      targets.attempt(async () => {
        throw new ConnectError("ERR_SPIPED_CONNECT", "dead");
      }),
    ).rejects.toThrow("dead");
    let connects = 0;
    const count = () => {
      connects += 1;
      return hang();
    };
    expect(await Promise.all(Array.from({ length: 100 }, () => targets.probe(count)))).not.toContain(true);
    expect(await targets.probe(count)).toBe(false);
    expect(connects).toBe(1);
    await targets.attempt(async () => {});
    expect(await targets.probe(count)).toBe(true);
  });

  it("is probed at most once a second", async () => {
    const targets = new Targets([target("/a")]);
    const fail = async () => {
      connects += 1;
      throw new ConnectError("ERR_SPIPED_CONNECT", "dead");
    };
    let connects = 0;
    await targets.attempt(fail).catch(() => {});
    for (let i = 0; i < 100; i += 1) expect(await targets.probe(fail)).toBe(false);
    expect(connects).toBe(2);
    await until(() => targets.probe(async () => {}));
  });

  it("is no longer preferred 30 seconds after the first target failed", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    try {
      const [a, b] = [target("/a"), target("/b")];
      const targets = new Targets([a, b]);
      const failing = async (candidate: Target) => {
        if (candidate === a) throw new ConnectError("ERR_SPIPED_CONNECT", "dead");
        return candidate;
      };
      const working = async (candidate: Target) => candidate;
      expect(await targets.attempt(failing)).toBe(b);
      vi.advanceTimersByTime(29_999);
      expect(await targets.attempt(working)).toBe(b);
      vi.advanceTimersByTime(1);
      expect(await targets.attempt(working)).toBe(a);
    } finally {
      vi.useRealTimers();
    }
  });

  it("stays preferred after it has worked, though it failed shortly before", async () => {
    const [a, b] = [target("/a"), target("/b")];
    const targets = new Targets([a, b]);
    const connect = (dead: Target[]) => async (candidate: Target) => {
      if (dead.includes(candidate)) throw new ConnectError("ERR_SPIPED_CONNECT", "dead");
      return candidate;
    };
    await expect(targets.attempt(connect([a, b]))).rejects.toThrow("dead");
    expect(await targets.attempt(connect([a]))).toBe(b);
    expect(await targets.attempt(connect([]))).toBe(b);
  });

  it("is tried if the first target rejects the handshake, but not after any other error", async () => {
    for (const [error, count] of [
      [new HandshakeError("ERR_SPIPED_HANDSHAKE_EOF", "closed"), 2],
      [new Error("the client has gone"), 1],
    ] as const) {
      let attempts = 0;
      const targets = new Targets([target("/a"), target("/b")]);
      const attempt = targets.attempt(async () => {
        attempts += 1;
        throw error;
      });
      await expect(attempt).rejects.toBe(error);
      expect(attempts).toBe(count);
      // An error that is not the targets' says nothing about them.
      expect(await targets.probe(() => new Promise(() => {}))).toBe(count === 1);
    }
  });
});
