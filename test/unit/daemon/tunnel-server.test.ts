/** The server of a tunnel, without the daemon around it. */
import { describe, expect, it, vi } from "vitest";
import { withDefaults } from "../../../src/config/option-spec.ts";
import { TUNNEL_OPTIONS } from "../../../src/config/options.ts";
import type { TunnelPlan } from "../../../src/config/plan.ts";
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

describe("a reload of keys with their own targets", () => {
  it("stops the DNS lookups of targets that are no longer active", async () => {
    const connectionLimit = () => new ConnectionLimit(1, () => {});
    const log = { warn: () => {}, info: () => {} };
    const admission = new Admission({ onShortage: () => {} });
    const engine = createNativeEngine();
    const exponents = new ExponentPool();
    const plan = (targets?: TunnelPlan["targets"]): TunnelPlan => ({
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
    });
    const options = (targets?: TunnelPlan["targets"]) =>
      serverOptions(plan(targets), { log, connectionLimit, admission, exponents, engine });
    const server = new TunnelServer(options([{ address: parseAddress("nosuch.invalid:1"), addresses: [] }]));
    const count = () => lookups.filter((text) => text === "nosuch.invalid:1").length;
    await until(() => count() > 2);
    server.reconfigure(options());
    const before = count();
    // Ten times the interval of the lookups.
    await new Promise((done) => setTimeout(done, 100));
    expect(count()).toBe(before);
    await server.drain();
  });
});
