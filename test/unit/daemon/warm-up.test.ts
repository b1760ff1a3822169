/** The warm-up of a process before it accepts connections. */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { afterEach, describe, expect, it, vi } from "vitest";
import { TunnelServer } from "../../../src/daemon/tunnel-server.ts";
import { warmUp } from "../../../src/daemon/warm-up.ts";
import type { Engine } from "../../../src/protocol/engine/engine.ts";
import { createNativeEngine } from "../../../src/protocol/engine/native.ts";
import { portableEngine } from "../../../src/protocol/engine/portable.ts";
import { CHANNELS } from "../../../src/tunnel/diagnostics-channels.ts";
import { cleanUp } from "../../support/programs.ts";

const warn = vi.fn<(message: string) => void>();

afterEach(() => {
  vi.restoreAllMocks();
  warn.mockReset();
});

/** Observes the connections that are accepted from now on. */
function observe() {
  const accept = vi.spyOn(TunnelServer.prototype, "accept");
  return {
    servers: () => accept.mock.contexts as TunnelServer[],
    sockets: () => accept.mock.calls.map(([socket]) => socket),
  };
}

/** Warms up, on a busy machine repeatedly: the time for it may pass before a connection is open. */
async function warmUpUntil(engine: Engine, check: () => void): Promise<void> {
  const attempt = async () => {
    await warmUp(engine, warn);
    check();
  };
  await vi.waitFor(attempt, { timeout: 20_000 });
}

describe("the warm-up", () => {
  it.each([createNativeEngine(), portableEngine])(
    "carries connections on the $name engine",
    async (engine) => {
      const accepted = observe();
      const createCipher = vi.spyOn(engine, "createCipher");
      await warmUpUntil(engine, () => expect(createCipher).toHaveBeenCalled());
      expect(new Set(accepted.servers().map(({ options }) => options.mode))).toEqual(
        new Set(["encrypt", "decrypt"]),
      );
    },
  );

  it("publishes nothing on the diagnostics channels", async () => {
    const listener = vi.fn();
    for (const { name } of Object.values(CHANNELS)) {
      subscribe(name, listener);
      cleanUp(() => void unsubscribe(name, listener));
    }
    await warmUp(createNativeEngine(), warn);
    expect(listener).not.toHaveBeenCalled();
  });

  it("leaves no connection open", async () => {
    const accepted = observe();
    await warmUp(createNativeEngine(), warn);
    expect(accepted.sockets().every(({ closed }) => closed)).toBe(true);
    for (const server of accepted.servers()) expect(server.connections).toBe(0);
  });

  it("that fails is abandoned", async () => {
    const engine: Engine = {
      ...createNativeEngine(),
      createCipher() {
        throw new Error("no cipher");
      },
    };
    const accepted = observe();
    await warmUp(engine, warn);
    expect(accepted.sockets().every(({ closed }) => closed)).toBe(true);
  });

  it("ends at an exception that nothing catches, and reports it", async () => {
    const engine: Engine = {
      ...createNativeEngine(),
      createCipher: () => ({
        seal() {
          throw new Error("no seal");
        },
        open() {
          throw new Error("no open");
        },
        destroy() {},
      }),
    };
    await warmUpUntil(engine, () => expect(warn).toHaveBeenCalled());
    expect(warn).toHaveBeenCalledExactlyOnceWith(
      expect.stringMatching(
        /^exception during the warm-up: Error: no seal at .*; continuing without a warm-up$/,
      ),
    );
    expect(process.hasUncaughtExceptionCaptureCallback()).toBe(false);
  });

  it("reports nothing else", async () => {
    await warmUp(createNativeEngine(), warn);
    expect(warn).not.toHaveBeenCalled();
  });
});
