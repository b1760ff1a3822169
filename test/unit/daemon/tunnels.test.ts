/** A reload: which tunnels are opened, drained, changed or left alone when new plans become active. */
import { chmodSync, mkdirSync, statSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withDefaults } from "../../../src/config/option-spec.ts";
import { TUNNEL_OPTIONS } from "../../../src/config/options.ts";
import type { TunnelPlan } from "../../../src/config/plan.ts";
import type { TunnelSettings } from "../../../src/config/tunnel-settings.ts";
import { PrivilegeError } from "../../../src/daemon/process/privileges.ts";
import type { Tunnel, TunnelFactory } from "../../../src/daemon/tunnel.ts";
import { BindError, checkSources, Tunnels } from "../../../src/daemon/tunnels.ts";
import type { ResolvedAddress } from "../../../src/net/address.ts";
import { parseAddress } from "../../../src/net/address.ts";
import { cleanUp, temporaryDirectory } from "../../support/programs.ts";

const tcp = (port: number, host = "127.0.0.1"): ResolvedAddress => ({
  kind: "tcp",
  host,
  port,
  family: host.includes(":") ? 6 : 4,
});
const unix = (path: string): ResolvedAddress => ({ kind: "unix", path });

/** @param more - settings of the tunnel, or fields of its plan. */
function plan(
  source: ResolvedAddress,
  {
    name,
    mode = "decrypt",
    targets,
    ...more
  }: Partial<TunnelSettings> & Partial<Pick<TunnelPlan, "mode" | "targets">> = {},
): TunnelPlan {
  const required = { decrypt: true, source: "/source", target: ["/target"], key: "/key" };
  return {
    name,
    mode,
    settings: withDefaults(TUNNEL_OPTIONS, { ...required, ...more }),
    source,
    targets: targets ?? [{ address: parseAddress("[127.0.0.1]:1"), addresses: [tcp(1)] }],
    keys: [],
  };
}

const UNRESOLVED = [{ address: parseAddress("later.invalid:1"), addresses: [] }];

/** Creates tunnels that record what is done to them, by the port or path of their first plan. */
function make() {
  const events: string[] = [];
  const infos: string[] = [];
  const failures = new Map<string, Error>();
  const drains = new Map<string, () => void>();
  const idOf = ({ source }: TunnelPlan) => (source.kind === "tcp" ? String(source.port) : source.path);
  const factory: TunnelFactory = {
    async open(first, inherited) {
      const id = idOf(first);
      const failure = failures.get(id);
      if (failure !== undefined) throw failure;
      events.push(`open ${id}${inherited === undefined ? "" : ` as descriptor ${inherited}`}`);
      const tunnel: Tunnel = {
        async serve(served) {
          events.push(`serve ${id}${served.name === undefined ? "" : ` as ${served.name}`}`);
        },
        drain() {
          events.push(`drain ${id}`);
          return new Promise((drained) => drains.set(id, drained));
        },
        destroy: () => void events.push(`destroy ${id}`),
        isReachable: async () => true,
        countConnections: async () => 1,
      };
      return tunnel;
    },
  };
  const tunnels = new Tunnels(factory, { warn: () => {}, info: (message) => void infos.push(message) });
  return {
    tunnels,
    failures,
    infos,
    drained: (id: string) => drains.get(id)!(),
    /** Returns the events since the last call. */
    events: () => events.splice(0),
    apply: (plans: readonly TunnelPlan[], inherited: ReadonlyMap<TunnelPlan, number> = new Map()) =>
      tunnels.applyPlans(plans, inherited),
  };
}

/** Starts with these plans; discards the events of that. */
async function startWith(...plans: TunnelPlan[]) {
  const made = make();
  await made.apply(plans);
  await made.tunnels.start();
  made.events();
  return made;
}

describe("the start of tunnels", () => {
  it("opens all before it serves the first, and logs where they listen", async () => {
    const { tunnels, events, infos, apply } = make();
    const [a, b] = [plan(tcp(1), { name: "mail" }), plan(unix("/nowhere/socket"), { mode: "encrypt" })];
    await apply([a, b], new Map([[b, 3]]));
    expect(events()).toEqual(["open 1", "open /nowhere/socket as descriptor 3"]);
    await tunnels.start();
    expect(events()).toEqual(["serve 1 as mail", "serve /nowhere/socket"]);
    expect(infos).toEqual([
      "mail: listening on [127.0.0.1]:1, decrypting to [127.0.0.1]:1",
      "listening on /nowhere/socket, encrypting to [127.0.0.1]:1",
    ]);
  });

  it("does not serve a tunnel before one of its targets has resolved", async () => {
    const { events, infos, apply } = await startWith(plan(tcp(1), { targets: UNRESOLVED }), plan(tcp(2)));
    expect(infos).toEqual(["listening on [127.0.0.1]:2, decrypting to [127.0.0.1]:1"]);
    await apply([plan(tcp(1), { targets: UNRESOLVED })]);
    expect(events()).toEqual(["drain 2"]);
    await apply([plan(tcp(1))]);
    expect(events()).toEqual(["serve 1"]);
    expect(infos.slice(1)).toEqual([
      "stopped listening on [127.0.0.1]:2",
      "listening on [127.0.0.1]:1, decrypting to [127.0.0.1]:1",
    ]);
  });
});

describe("a reload", () => {
  it("opens new addresses, drains removed ones, and changes the others", async () => {
    const { events, infos, apply } = await startWith(plan(tcp(1)), plan(tcp(2)));
    await apply([plan(tcp(3)), plan(tcp(2), { timeout: 5 })]);
    expect(events()).toEqual(["open 3", "drain 1", "serve 3", "serve 2"]);
    expect(infos.slice(2).map((line) => line.split(",")[0])).toEqual([
      "stopped listening on [127.0.0.1]:1",
      "listening on [127.0.0.1]:3",
    ]);
  });

  it("leaves a tunnel alone if its plan is the same", async () => {
    const same = plan(tcp(1));
    const { events, apply } = await startWith(same);
    await apply([same, plan(tcp(2))]);
    expect(events()).toEqual(["open 2", "serve 2"]);
  });

  it("keeps tunnels that are renamed or listed in another order", async () => {
    const { events, apply } = await startWith(plan(tcp(1), { name: "a" }), plan(tcp(2), { name: "b" }));
    await apply([plan(tcp(2), { name: "a" }), plan(tcp(1), { name: "b" })]);
    expect(events()).toEqual(["serve 2 as a", "serve 1 as b"]);
  });

  it("recognizes another spelling of an address", async () => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, "real"));
    symlinkSync("real", join(directory, "link"));
    const { events, apply } = await startWith(
      plan(tcp(1, "::1")),
      plan(unix(join(directory, "real/socket"))),
      plan(tcp(2, "::ffff:127.0.0.1")),
    );
    await apply([
      plan(tcp(1, "0:0:0:0:0:0:0:1")),
      plan(unix(join(directory, "link/../link/socket"))),
      plan(tcp(2, "::FFFF:127.0.0.1")),
    ]);
    expect(events().map((event) => event.split(" ")[0])).toEqual(["serve", "serve", "serve"]);
  });

  it("distinguishes addresses that differ in the port or the host only", async () => {
    const { events, apply } = await startWith(plan(tcp(1)), plan(tcp(2, "::1")));
    await apply([plan(tcp(1, "127.0.0.2")), plan(tcp(3, "::1"))]);
    expect(events()).toEqual(["open 1", "open 3", "drain 1", "drain 2", "serve 1", "serve 3"]);
  });

  it("changes nothing if an address can't be opened", async () => {
    const { events, failures, apply } = await startWith(plan(tcp(1)));
    const inUse = Object.assign(new Error("bind EADDRINUSE"), { code: "EADDRINUSE" });
    failures.set("3", inUse);
    const wrong = plan(tcp(3));
    const error = await apply([plan(tcp(2)), wrong]).catch((error) => error);
    expect(error).toBeInstanceOf(BindError);
    expect(error).toMatchObject({ plan: wrong, cause: inUse, message: "Address already in use" });
    expect(events()).toEqual(["open 2", "destroy 2"]);
    failures.clear();
    await apply([plan(tcp(2)), plan(tcp(1))]);
    expect(events()).toEqual(["open 2", "serve 2", "serve 1"]);
  });

  it("reports an unknown owner as such", async () => {
    const { failures, apply } = make();
    failures.set("1", new PrivilegeError("No such user: x"));
    await expect(apply([plan(tcp(1))])).rejects.toBeInstanceOf(PrivilegeError);
  });

  it("opens nothing during a drain", async () => {
    const { tunnels, events, drained, apply } = await startWith(plan(tcp(1)));
    const done = tunnels.drain();
    await apply([plan(tcp(2))]);
    expect(events()).toEqual(["drain 1", "open 2", "destroy 2"]);
    drained("1");
    await done;
  });

  it("counts the connections of removed tunnels, and waits for them at the end", async () => {
    const { tunnels, drained, apply } = await startWith(plan(tcp(1)), plan(tcp(2)));
    await apply([plan(tcp(1))]);
    expect(await tunnels.countConnections()).toBe(2);
    let ended = false;
    const done = tunnels.drain().then(() => {
      ended = true;
    });
    drained("1");
    await new Promise(setImmediate);
    expect(ended).toBe(false);
    drained("2");
    await done;
    expect(await tunnels.countConnections()).toBe(1);
  });

  it("changes the mode of a UNIX socket only if that differs from the previous plan", async () => {
    const path = join(temporaryDirectory(), "socket");
    const server = createServer().listen(path);
    cleanUp(() => void server.close());
    await new Promise((listening) => server.once("listening", listening));
    const mode = () => statSync(path).mode & 0o777;
    const { apply } = await startWith(plan(unix(path), { socketMode: 0o600 }));
    chmodSync(path, 0o640);
    await apply([plan(unix(path), { socketMode: 0o600 })]);
    expect(mode()).toBe(0o640);
    await apply([plan(unix(path), { socketMode: 0o660 })]);
    expect(mode()).toBe(0o660);
    await apply([plan(unix(path))]);
    expect(mode()).toBe(0o660);
  });
});

describe("two tunnels with one address", () => {
  it("are rejected, however the address is written", () => {
    const [a, b] = [plan(tcp(1, "::1"), { name: "a" }), plan(tcp(1, "0::1"), { name: "b" })];
    expect(() => checkSources([a, plan(tcp(2)), b])).toThrow(
      "tunnels a and b listen on the same address: [0::1]:1",
    );
    expect(() => checkSources([a, plan(tcp(1)), plan(tcp(2, "::1")), plan(unix("/a"))])).not.toThrow();
  });
});
