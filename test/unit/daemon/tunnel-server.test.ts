/** The server of a tunnel, without the daemon around it. */
import { describe, expect, it, vi } from "vitest";
import { withDefaults } from "../../../src/config/option-spec.ts";
import { TUNNEL_OPTIONS } from "../../../src/config/options.ts";
import type { TunnelPlan } from "../../../src/config/plan.ts";
import type { ServerOptions } from "../../../src/daemon/server-options.ts";
import { serverOptions } from "../../../src/daemon/tunnel-options.ts";
import { TunnelServer } from "../../../src/daemon/tunnel-server.ts";
import { parseAddress } from "../../../src/net/address.ts";
import { createNativeEngine } from "../../../src/protocol/engine/native.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import { Admission } from "../../../src/tunnel/admission.ts";
import { ConnectionLimit } from "../../../src/tunnel/connection-limit.ts";
import { ExponentPool } from "../../../src/tunnel/exponent-pool.ts";
import { until } from "../../support/programs.ts";

/** Names that are looked up; each lookup fails. */
const lookups = vi.hoisted(() => [] as string[]);
vi.mock("../../../src/net/resolve.ts", () => ({
  async resolveAddress({ text }: { text: string }) {
    lookups.push(text);
    throw new Error("no such name");
  },
}));

/** Returns the options of a server with one key, which has its own targets if any are given. */
function makeOptions(targets?: TunnelPlan["targets"]): ServerOptions {
  const plan: TunnelPlan = {
    mode: "decrypt",
    settings: withDefaults(TUNNEL_OPTIONS, {
      decrypt: true,
      source: "/nowhere",
      target: ["/nowhere"],
      key: "/nowhere",
      resolveInterval: 10,
    }),
    source: { kind: "unix", path: "/nowhere" },
    targets: [{ address: parseAddress("/nowhere"), addresses: [] }],
    keys: [{ name: "a", secret: Secret.fromKeyFile(Buffer.from("a")), targets }],
  };
  return serverOptions(plan, {
    log: { warn: () => {}, info: () => {} },
    connectionLimit: () => new ConnectionLimit(1, () => {}),
    admission: new Admission({ onShortage: () => {} }),
    exponents: new ExponentPool(),
    engine: createNativeEngine(),
  });
}

describe("the DNS lookups of keys with their own targets stop", () => {
  it.each<[string, (server: TunnelServer) => unknown]>([
    ["when a reload removes the targets", (server) => server.reconfigure(makeOptions())],
    ["when the server is drained", (server) => server.drain()],
    ["when the server is destroyed", (server) => server.destroy()],
  ])("%s", async (_, act) => {
    lookups.length = 0;
    const server = new TunnelServer(
      makeOptions([{ address: parseAddress("nosuch.invalid:1"), addresses: [] }]),
    );
    const count = () => lookups.filter((text) => text === "nosuch.invalid:1").length;
    await until(() => count() > 2);
    act(server);
    const before = count();
    // Ten times the interval of the lookups.
    await new Promise((done) => setTimeout(done, 100));
    expect(count()).toBe(before);
    await server.drain();
  });
});
