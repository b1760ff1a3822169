/**
 * A world: one process with an encrypting and a decrypting server, clients, targets and intruders on a network in
 * memory, all driven by one seed.
 */
import "./system.ts";

import { Keyring } from "../../src/daemon/keyring.ts";
import { Target } from "../../src/daemon/target.ts";
import { Targets } from "../../src/daemon/targets.ts";
import type { Engine } from "../../src/protocol/engine/engine.ts";
import { Secret } from "../../src/protocol/secret.ts";
import { Admission } from "../../src/tunnel/admission.ts";
import { ConnectionLimit } from "../../src/tunnel/connection-limit.ts";
import { Intruder, startImpostor } from "./adversary.ts";
import { BaseWorld, DECRYPTING } from "./base-world.ts";
import { EPOCH_MS } from "./clock.ts";
import { checkAtEnd, checkAtRest, checkEnd, checkPartner, watchUnauthenticated } from "./invariants.ts";
import { type Endpoint, type SocketAddress } from "./network.ts";
import { Peer, type PeerPlan } from "./peer.ts";
import { Random } from "./random.ts";
import { END_MS, type Outcome, REST_MS, runSimulation } from "./run-simulation.ts";
import { type ClientPlan, makeScenario, type Operation, type Scenario } from "./scenario.ts";
import { Server, type Settings } from "./server.ts";

const ENCRYPTING: SocketAddress = { host: "10.0.0.1", port: 8022 };
const TARGET: SocketAddress = { host: "10.0.0.3", port: 22 };
const IMPOSTOR: SocketAddress = { host: "10.0.0.5", port: 8023 };

/** Everything in a world. */
export class World extends BaseWorld<Scenario> {
  /** Clients and what the target has accepted, by number. */
  readonly peers = new Map<number, Peer>();
  readonly clients: Peer[] = [];
  readonly targets: Peer[] = [];
  readonly servers: Server[] = [];
  readonly admission: Admission;
  readonly encryptingLimit: ConnectionLimit;
  readonly decryptingLimit: ConnectionLimit;
  readonly keyLimit: ConnectionLimit;
  readonly #intruders: Intruder[] = [];
  readonly #keys: Secret[];
  readonly #plans: ClientPlan[];
  encrypting!: Server;
  decrypting!: Server;
  #hasKey = true;
  #extraKeys = 0;
  #lookups = 0;

  constructor(seed: number, scenario: Scenario, engine: Engine, keepsText: boolean) {
    super(seed, scenario, engine, keepsText);
    this.#keys = Array.from({ length: scenario.keys + 2 }, (_, index) =>
      Secret.fromKeyFile(Buffer.from(`key ${index}`)),
    );
    this.#plans = [...scenario.clients];
    this.admission = new Admission({ processes: scenario.processes, onShortage: () => {} });
    this.encryptingLimit = new ConnectionLimit(scenario.encryptingLimit, () => {});
    this.decryptingLimit = new ConnectionLimit(scenario.decryptingLimit, () => {});
    this.keyLimit = new ConnectionLimit(scenario.keyLimit, () => {});
  }

  /** Number of connections that the servers have accepted. */
  get connections(): number {
    return this.servers.reduce((sum, { accepted }) => sum + accepted, 0);
  }

  protected async play(): Promise<void> {
    const { scenario, network } = this;
    this.#startServers();
    this.loop.onIteration = watchUnauthenticated(this);
    this.#startTarget();
    for (const plan of scenario.clients) this.#startClient(plan);
    for (const plan of scenario.intruders) {
      this.#intruders.push(new Intruder(plan, network, DECRYPTING, this.#keys[0]!, scenario.weak));
    }
    if (scenario.impostor !== undefined) {
      startImpostor(scenario.impostor, network, IMPOSTOR, this.#keys[0]!);
    }
    for (const operation of scenario.operations) {
      network.after(operation.at, () => this.loop.post(() => this.#operate(operation)));
    }
    await this.drive(this.clock.start + REST_MS);
    checkAtRest(this);
    await this.#finish();
  }

  protected checkAtEnd(): void {
    checkAtEnd(this);
  }

  /** Makes everything end. */
  async #finish(): Promise<void> {
    this.trace.record("finale", 0, this.scenario.finale);
    const end = () => {
      for (const server of this.servers) {
        if (this.scenario.finale === "drain") server.drain();
        else server.destroy();
      }
    };
    this.loop.post(end);
    if (this.scenario.finale === "drain") await this.drive(this.clock.now + 10_000);
    for (const peer of [...this.clients, ...this.targets])
      peer.breakOff(this.random.pick(["close", "reset"]));
    for (const intruder of this.#intruders) intruder.leave();
    await this.drive(this.clock.now + 30_000);
    // As the daemon does when its drain takes too long: peers may have vanished.
    this.loop.post(() => {
      for (const server of this.servers) server.destroy();
    });
    await this.drive(this.clock.now + END_MS);
  }

  protected onEstablished(near: Endpoint, far: Endpoint): void {
    if (near.local.host !== ENCRYPTING.host || far.local.host !== DECRYPTING.host) return;
    const attack = this.#plans.shift()?.attack;
    if (attack !== undefined) this.attack(attack, near, far, near.local.port);
  }

  #startServers(): void {
    const { host } = this;
    this.encrypting = new Server("E", host, ENCRYPTING, this.#encryptingSettings(), this.report);
    this.decrypting = new Server("D", host, DECRYPTING, this.#decryptingSettings(), this.report);
    this.servers.push(this.encrypting, this.decrypting);
  }

  #commonSettings() {
    const { weak, requireForwardSecrecy, timeout, idleTimeout, keepAlive } = this.scenario;
    const { admission, exponents, engine } = this;
    return { weak, requireForwardSecrecy, timeout, idleTimeout, keepAlive, admission, exponents, engine };
  }

  #encryptingSettings(): Settings {
    return {
      ...this.#commonSettings(),
      mode: "encrypt",
      targets: new Targets(
        [...(this.scenario.impostor === undefined ? [] : [IMPOSTOR]), DECRYPTING].map((address) =>
          makeTarget([address]),
        ),
      ),
      keyring: new Keyring([{ secret: Secret.copy(this.#keys[1]!) }]),
      connectionLimit: this.encryptingLimit,
    };
  }

  #decryptingSettings(): Settings {
    const { keys, expires, keyLimit, deadAddresses, sendProxy } = this.scenario;
    const dead = Array.from({ length: deadAddresses }, (_, index) => ({ host: "10.0.0.4", port: index + 1 }));
    // The clients' key comes last.
    const indexes = Array.from({ length: keys - 1 + this.#extraKeys }, (_, index) => index + 2);
    if (this.#hasKey) indexes.push(1);
    return {
      ...this.#commonSettings(),
      mode: "decrypt",
      targets: this.#decryptingTargets([...dead, TARGET]),
      keyring: new Keyring(
        indexes.map((index) => ({
          name: `key-${index}`,
          fingerprint: "",
          secret: Secret.copy(this.#keys[index]!),
          ...(index === 1 && {
            expires: expires === Number.POSITIVE_INFINITY ? undefined : EPOCH_MS + expires,
            connectionLimit: keyLimit === Number.POSITIVE_INFINITY ? undefined : this.keyLimit,
          }),
        })),
      ),
      connectionLimit: this.decryptingLimit,
      sendProxy,
    };
  }

  /** Returns the target, whose name is looked up periodically if the scenario says so. */
  #decryptingTargets(addresses: readonly SocketAddress[]): Targets {
    const { resolveInterval } = this.scenario;
    if (resolveInterval === Number.POSITIVE_INFINITY) return new Targets([makeTarget(addresses)]);
    const targets = new Targets([makeTarget(addresses, "target.example")]);
    targets.startRefreshing(resolveInterval);
    return targets;
  }

  /** Looks up the target's name, in a thread of the process. */
  protected lookUp(): Promise<string[]> {
    const { lookups } = this.scenario;
    const found = lookups[this.#lookups % lookups.length]!;
    this.#lookups += 1;
    return new Promise((resolve, reject) => {
      this.network.after(this.random.below(64), () =>
        this.loop.post(() => {
          this.trace.record("lookup", found);
          if (found === "fails") reject(Object.assign(new Error("no such name"), { code: "ENOTFOUND" }));
          else resolve([found === "target" ? TARGET.host : "10.0.0.6"]);
        }),
      );
    });
  }

  #startTarget(): void {
    const { network, scenario } = this;
    let listening: { close(): void } | undefined;
    const plans = [...scenario.targetPlans];
    const listen = () => {
      const port = network.listen(TARGET, 128);
      port.onChange = () => {
        for (let endpoint = port.queue.shift(); endpoint !== undefined; endpoint = port.queue.shift()) {
          const plan = plans.shift() ?? scenario.targetPlans[0]!;
          const peer = this.#addPeer("target", plan);
          peer.port = endpoint.remote.port;
          this.targets.push(peer);
          if (scenario.sendProxy !== undefined) peer.skipHeader = proxyHeaderSkipper();
          peer.attach(endpoint);
        }
      };
      listening = port;
    };
    listen();
    for (const { at, state } of scenario.targetStates) {
      network.after(at, () => {
        this.trace.record("target", state);
        listening?.close();
        if (state === "listens") listen();
        else network.setSilence(TARGET, state);
      });
    }
  }

  #startClient(plan: ClientPlan): void {
    const peer = this.#addPeer("client", plan.peer);
    this.clients.push(peer);
    this.network.after(plan.at, () => {
      const endpoint = this.network.connect(plan.host, ENCRYPTING, (status) => {
        if (status === 0) peer.attach(endpoint);
        else peer.error = status;
      });
      peer.port = endpoint.local.port;
    });
  }

  #addPeer(name: string, plan: PeerPlan): Peer {
    const peer = new Peer(this.peers.size + 1, name, plan, this.network, this.peers, this.report);
    peer.onPartner = (partner) => checkPartner(this, peer, partner);
    peer.onEnd = () => checkEnd(this, peer);
    this.peers.set(peer.id, peer);
    return peer;
  }

  #operate({ kind, limit }: Operation): void {
    this.trace.record("operation", kind);
    switch (kind) {
      case "reload":
        this.encrypting.reconfigure(() => this.#encryptingSettings());
        break;
      case "remove-key":
        this.#hasKey = false;
        break;
      case "add-key":
        this.#hasKey = true;
        this.#extraKeys = 1;
        break;
      case "limit":
        this.encryptingLimit.setLimit(limit);
        this.decryptingLimit.setLimit(limit);
        break;
      case "probe":
        for (const server of this.servers) server.probe();
        return;
      case "drain-encrypting":
        this.encrypting.drain();
        return;
      case "drain-decrypting":
        this.decrypting.drain();
        return;
      case "destroy-encrypting":
        this.encrypting.destroy();
        return;
      case "destroy-decrypting":
        this.decrypting.destroy();
        return;
    }
    this.decrypting.reconfigure(() => this.#decryptingSettings());
  }
}

function makeTarget(addresses: readonly SocketAddress[], name?: string): Target {
  const [{ host, port }] = addresses as [SocketAddress];
  const text = `[${host}]:${port}`;
  return new Target(
    name === undefined
      ? { kind: "ip", host, port, family: 4, text }
      : { kind: "name", host: name, service: String(port), text: name },
    addresses.map((address) => ({ kind: "tcp", ...address, family: 4 })),
    () => {},
  );
}

export function makeTargets(addresses: readonly SocketAddress[]): Targets {
  return new Targets([makeTarget(addresses)]);
}

const PROXY_V2_FIXED_SIZE = 16;

/** Returns a function that counts the bytes of a read that belong to a PROXY protocol header. */
function proxyHeaderSkipper(): (bytes: Buffer) => number {
  let header = Buffer.alloc(0);
  let isComplete = false;
  return (bytes) => {
    if (isComplete) return 0;
    const before = header.length;
    header = Buffer.concat([header, bytes]);
    let end = -1;
    if (header[0] === "P".charCodeAt(0)) end = header.indexOf("\r\n") + 2;
    else if (header.length >= PROXY_V2_FIXED_SIZE) end = PROXY_V2_FIXED_SIZE + header.readUInt16BE(14);
    if (end < 2 || header.length < end) return bytes.length;
    isComplete = true;
    return end - before;
  };
}

/**
 * Runs the world of a seed. Only one world can run at a time.
 *
 * @param scenario - what happens in it; the seed decides only when and in which order.
 */
export function runWorld(
  seed: number,
  engine: Engine,
  { scenario = makeScenario(new Random(seed, 0)), keepsText = false } = {},
): Promise<Outcome> {
  return runSimulation(new World(seed, scenario, engine, keepsText));
}
