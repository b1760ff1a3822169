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

afterEach(() => {
  vi.restoreAllMocks();
});

/** Observes the connections that are accepted from now on. */
function observe() {
  const accept = vi.spyOn(TunnelServer.prototype, "accept");
  return {
    servers: () => accept.mock.contexts as TunnelServer[],
    sockets: () => accept.mock.calls.map(([socket]) => socket),
  };
}

describe("the warm-up", () => {
  it.each([createNativeEngine(), portableEngine])(
    "carries connections on the $name engine",
    async (engine) => {
      const accepted = observe();
      const createCipher = vi.spyOn(engine, "createCipher");
      await warmUp(engine);
      expect(new Set(accepted.servers().map(({ options }) => options.mode))).toEqual(
        new Set(["encrypt", "decrypt"]),
      );
      expect(createCipher).toHaveBeenCalled();
    },
  );

  it("publishes nothing on the diagnostics channels", async () => {
    const listener = vi.fn();
    for (const { name } of Object.values(CHANNELS)) {
      subscribe(name, listener);
      cleanUp(() => void unsubscribe(name, listener));
    }
    await warmUp(createNativeEngine());
    expect(listener).not.toHaveBeenCalled();
  });

  it("leaves no connection open", async () => {
    const accepted = observe();
    await warmUp(createNativeEngine());
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
    await warmUp(engine);
    expect(accepted.sockets().every(({ closed }) => closed)).toBe(true);
  });
});
