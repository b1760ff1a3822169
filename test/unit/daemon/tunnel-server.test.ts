/** The server of a tunnel, without the daemon around it. */
import { describe, expect, it } from "vitest";
import { withDefaults } from "../../../src/config/option-spec.ts";
import { TUNNEL_OPTIONS } from "../../../src/config/options.ts";
import type { TunnelPlan } from "../../../src/config/plan.ts";
import { serverOptions } from "../../../src/daemon/tunnel-options.ts";
import { TunnelServer } from "../../../src/daemon/tunnel-server.ts";
import { parseAddress } from "../../../src/net/address.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import { Admission } from "../../../src/tunnel/admission.ts";
import { ConnectionLimit } from "../../../src/tunnel/connection-limit.ts";
import { until } from "../../support/programs.ts";

describe("a reload of keys with their own targets", () => {
  it("stops the DNS lookups of targets that are no longer active", async () => {
    const failures: Error[] = [];
    const connectionLimit = () => new ConnectionLimit(1, () => {});
    const log = { warn: (message: string) => failures.push(new Error(message)), info: () => {} };
    const admission = new Admission({ onShortage: () => {} });
    const observer = { lookupFailed: () => failures.push(new Error("look-up")) };
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
      serverOptions(plan(targets), { log, observer, connectionLimit, admission });
    const server = new TunnelServer(options([{ address: parseAddress("nosuch.invalid:1"), addresses: [] }]));
    await until(() => failures.length > 2);
    server.reconfigure(options());
    await new Promise((done) => setTimeout(done, 100));
    const count = failures.length;
    await new Promise((done) => setTimeout(done, 300));
    expect(failures.length).toBe(count);
    await server.drain();
  });
});
