/**
 * A world of the library: programs that use `connect()` and `createServer()`, with each other, or with a daemon between
 * them and programs without the library.
 */
import "./system.ts";

import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { Keyring } from "../../src/daemon/keyring.ts";
import { connect } from "../../src/library/connect.ts";
import { createServer, type Key, type SpipedServer } from "../../src/library/create-server.ts";
import type { ResolvedAddress } from "../../src/net/address.ts";
import { ConnectError } from "../../src/net/connect-error.ts";
import { createSocket } from "../../src/net/direct-read.ts";
import { Listener } from "../../src/net/listener.ts";
import type { DirectionKeys, Engine, PacketCipher } from "../../src/protocol/engine/engine.ts";
import { HandshakeError } from "../../src/protocol/protocol-error.ts";
import { Secret } from "../../src/protocol/secret.ts";
import { Admission } from "../../src/tunnel/admission.ts";
import { ConnectionLimit } from "../../src/tunnel/connection-limit.ts";
import { CHANNELS } from "../../src/tunnel/diagnostics-channels.ts";
import { RejectedError } from "../../src/tunnel/tunnel-error.ts";
import { BaseWorld, DECRYPTING } from "./base-world.ts";
import { EPOCH_MS } from "./clock.ts";
import { Journal } from "./journal.ts";
import {
  checkLibraryAtEnd,
  checkLibraryAtRest,
  checkLibraryEnd,
  checkLibraryPartner,
} from "./library-invariants.ts";
import { LibraryPeer } from "./library-peer.ts";
import {
  type ConnectPlan,
  type LibraryOperation,
  type LibraryScenario,
  makeLibraryScenario,
} from "./library-scenario.ts";
import { type Endpoint, type SocketAddress } from "./network.ts";
import { type Party, Peer, type PeerPlan } from "./peer.ts";
import { Random } from "./random.ts";
import { END_MS, type Outcome, REST_MS, runSimulation } from "./run-simulation.ts";
import type { Attack, ClientPlan } from "./scenario.ts";
import { Server } from "./server.ts";
import { SimulatedHandle, SimulatedListener } from "./simulated-handle.ts";
import { describeError } from "./stream-watch.ts";
import { makeTargets } from "./world.ts";

const ENCRYPTING: SocketAddress = { host: "10.0.0.1", port: 8022 };
const LIBRARY: SocketAddress = { host: "10.0.0.2", port: 8024 };
const TARGET: SocketAddress = { host: "10.0.0.3", port: 22 };

/** The outcome of a call of `connect()`. */
export interface Attempt {
  readonly plan: ConnectPlan;
  readonly peer: LibraryPeer;
  outcome: "pending" | "connected" | "failed";
}

/** Everything in a world of the library. */
export class LibraryWorld extends BaseWorld<LibraryScenario> {
  readonly parties = new Map<number, Party>();
  readonly attempts: Attempt[] = [];
  readonly plainClients: Peer[] = [];
  readonly served: LibraryPeer[] = [];
  readonly targets: Peer[] = [];
  readonly journal: Journal;
  /** The decrypting daemon, or the encrypting one. */
  daemon: Server | undefined;
  server: SpipedServer | undefined;
  /** Number of connections that the library's server has accepted, and what it has reported of them. */
  accepted = 0;
  refused = 0;
  isClosing = false;
  isClosed = false;
  /** Ciphers whose keys are not overwritten. */
  readonly ciphers = new Set<PacketCipher>();
  readonly #key = Secret.fromKeyFile(Buffer.from("the clients' key"));
  readonly #wrongKey = Secret.fromKeyFile(Buffer.from("another key"));
  readonly #keys: Key[] = [];
  /** What the adversary does to connections, by the port of the client. */
  readonly #attacks = new Map<number, Attack>();

  constructor(seed: number, scenario: LibraryScenario, engine: Engine, keepsText: boolean) {
    super(seed, scenario, engine, keepsText);
    this.journal = new Journal(this.trace, this.report);
  }

  get connections(): number {
    return this.accepted + (this.daemon?.accepted ?? 0);
  }

  protected async play(): Promise<void> {
    const restore = this.#observe();
    try {
      await this.#start();
      await this.drive(this.clock.start + REST_MS);
      checkLibraryAtRest(this);
      await this.#finish();
    } finally {
      restore();
    }
  }

  protected checkAtEnd(): void {
    checkLibraryAtEnd(this);
  }

  protected lookUp(): Promise<never> {
    return Promise.reject(new Error("no names"));
  }

  async #start(): Promise<void> {
    const { scenario } = this;
    const { topology } = scenario;
    if (topology === "daemon") {
      this.daemon = this.#makeDaemon("decrypt", DECRYPTING, TARGET);
      this.#startTarget();
    } else {
      await this.#startServer();
      if (topology === "plain") this.daemon = this.#makeDaemon("encrypt", ENCRYPTING, LIBRARY);
    }
    for (const plan of scenario.connects) this.#startConnect(plan);
    for (const plan of scenario.plains) this.#startPlain(plan);
    for (const operation of scenario.operations) {
      this.network.after(operation.at, () => this.loop.post(() => this.#operate(operation)));
    }
    const address = topology === "plain" ? LIBRARY : topology === "daemon" ? DECRYPTING : LIBRARY;
    for (const { at, state } of scenario.states) {
      this.network.after(at, () => {
        this.trace.record("address", state);
        if (state !== "listens") this.network.setSilence(address, state);
      });
    }
  }

  /** Makes everything end. */
  async #finish(): Promise<void> {
    this.trace.record("finale");
    this.loop.post(() => this.#close());
    await this.drive(this.clock.now + 10_000);
    for (const peer of [...this.plainClients, ...this.targets])
      peer.breakOff(this.random.pick(["close", "reset"]));
    await this.drive(this.clock.now + 10_000);
    this.loop.post(() => {
      this.daemon?.destroy();
      for (const peer of [...this.attempts.map(({ peer }) => peer), ...this.served])
        peer.breakOff(this.random.pick(["destroy", "destroy-error", "dispose"]));
    });
    await this.drive(this.clock.now + 10_000);
    this.loop.post(() => {
      for (const peer of [...this.attempts.map(({ peer }) => peer), ...this.served]) peer.breakOff("destroy");
    });
    await this.drive(this.clock.now + END_MS);
  }

  /** Observes events and ciphers, and lets servers of the library listen on the simulated network. */
  #observe(): () => void {
    const { engine, ciphers } = this;
    const host = this.host;
    const onHandle = () => {
      this.accepted += 1;
    };
    const restoreListen = replaceMethod(
      Listener.prototype,
      "listen",
      () =>
        function (this: Listener, address: ResolvedAddress) {
          if (address.kind !== "tcp") throw new Error("only TCP is simulated");
          return this.listenOn(new SimulatedListener(host, address, onHandle));
        },
    );
    const restoreCreateCipher = replaceMethod(
      engine,
      "createCipher",
      (createCipher) => (keys: DirectionKeys) => {
        const cipher = createCipher(keys);
        ciphers.add(cipher);
        replaceMethod(cipher, "destroy", (destroy) => () => {
          ciphers.delete(cipher);
          destroy();
        });
        return cipher;
      },
    );
    const onEvent = this.journal.add as (message: unknown) => void;
    for (const { name } of Object.values(CHANNELS)) subscribe(name, onEvent);
    return () => {
      restoreListen();
      restoreCreateCipher();
      for (const { name } of Object.values(CHANNELS)) unsubscribe(name, onEvent);
    };
  }

  protected onEstablished(near: Endpoint, far: Endpoint): void {
    if (near.remote.host !== DECRYPTING.host) return;
    const { port } = near.local;
    const clientPort = this.daemon?.clientPorts.get(port) ?? port;
    const attack = this.#attacks.get(clientPort);
    if (attack !== undefined) this.attack(attack, near, far, clientPort);
  }

  #makeDaemon(mode: "encrypt" | "decrypt", address: SocketAddress, target: SocketAddress): Server {
    const { weak, requireForwardSecrecy, timeout, keepAlive } = this.scenario;
    const settings = {
      weak,
      requireForwardSecrecy,
      timeout,
      idleTimeout: Number.POSITIVE_INFINITY,
      keepAlive,
      admission: new Admission({ onShortage: () => {} }),
      exponents: this.exponents,
      engine: this.engine,
      mode,
      targets: makeTargets([target]),
      keyring: new Keyring([{ name: "key", fingerprint: "", secret: Secret.copy(this.#key) }]),
      connectionLimit: new ConnectionLimit(Number.POSITIVE_INFINITY, () => {}),
    };
    return new Server(mode === "encrypt" ? "E" : "D", this.host, address, settings, this.report);
  }

  async #startServer(): Promise<void> {
    const { weak, requireForwardSecrecy, serverTimeout, keepAlive, allowHalfOpen, keys, expires } =
      this.scenario;
    for (let index = 1; index < keys; index += 1) {
      this.#keys.push({ name: `key-${index}`, secret: Secret.fromKeyFile(Buffer.from(`key ${index}`)) });
    }
    const own = { name: "clients", secret: this.#key };
    if (expires === Number.POSITIVE_INFINITY) this.#keys.push(own);
    else this.#keys.push({ ...own, expires: new Date(EPOCH_MS + expires) });
    const server = createServer({
      ...(keys === 0 ? { key: this.#key } : { keys: this.#keys }),
      weak,
      requireForwardSecrecy,
      timeout: serverTimeout,
      keepAlive,
      allowHalfOpen,
    });
    this.server = server;
    const plans = [...this.scenario.served];
    server.on("connection", (socket) => {
      const plan = plans.shift() ?? this.scenario.served[0]!;
      const peer = this.#addPeer(
        "target",
        plan.writer === "pipe" && !allowHalfOpen ? { ...plan, writer: "drain" as const } : plan,
      );
      this.served.push(peer);
      peer.port = socket.remotePort;
      if ((socket.keyName !== undefined) !== keys > 0)
        this.report(`the name of the key is ${socket.keyName}`);
      peer.attach(socket);
    });
    server.on("refused", (error, { port }) => {
      this.refused += 1;
      this.trace.record("refused", port, describeError(error));
      if (!(error instanceof HandshakeError) && !(error instanceof RejectedError))
        this.report(`refused with ${describeError(error)}: ${error.stack}`);
    });
    server.on("warning", (error) => this.trace.record("warning", describeError(error)));
    await server.listen(LIBRARY);
  }

  #startTarget(): void {
    const { network, scenario } = this;
    const plans = [...scenario.targets];
    const port = network.listen(TARGET, 128);
    port.onChange = () => {
      for (let endpoint = port.queue.shift(); endpoint !== undefined; endpoint = port.queue.shift()) {
        const peer = this.#addPlain("target", plans.shift() ?? scenario.targets[0]!);
        peer.port = endpoint.remote.port;
        this.targets.push(peer);
        peer.attach(endpoint);
      }
    };
  }

  #startPlain(plan: ClientPlan): void {
    const peer = this.#addPlain("client", plan.peer);
    this.plainClients.push(peer);
    this.network.after(plan.at, () => {
      const endpoint = this.network.connect(plan.host, ENCRYPTING, (status) => {
        if (status === 0) peer.attach(endpoint);
        else peer.error = status;
      });
      peer.port = endpoint.local.port;
      if (plan.attack !== undefined) this.#attacks.set(peer.port, plan.attack);
    });
  }

  #startConnect(plan: ConnectPlan): void {
    const { program, allowHalfOpen } = plan;
    const peer = this.#addPeer(
      "client",
      program.writer === "pipe" && !allowHalfOpen ? { ...program, writer: "drain" as const } : program,
    );
    const attempt: Attempt = { plan, peer, outcome: "pending" };
    this.attempts.push(attempt);
    this.network.after(plan.at, () => this.loop.post(() => this.#connect(attempt)));
  }

  #connect(attempt: Attempt): void {
    const { plan, peer } = attempt;
    const { topology, weak, requireForwardSecrecy, timeout, keepAlive } = this.scenario;
    const reason = new Error("given up");
    const controller = new AbortController();
    if (plan.abortAfter !== undefined) setTimeout(() => controller.abort(reason), plan.abortAfter);
    const options = {
      ...(topology === "library" ? LIBRARY : DECRYPTING),
      key: plan.hasWrongKey ? this.#wrongKey : this.#key,
      weak,
      requireForwardSecrecy,
      timeout,
      keepAlive,
      allowHalfOpen: plan.allowHalfOpen,
      ...(plan.abortAfter !== undefined && { signal: controller.signal }),
      openSocket: (address: ResolvedAddress) => this.#openSocket(plan, peer, address),
    };
    this.trace.record("connect", peer.id);
    connect(options).then(
      (socket) => {
        attempt.outcome = "connected";
        this.trace.record("opened", peer.id);
        if (socket.allowHalfOpen !== plan.allowHalfOpen) this.report("allowHalfOpen is not applied");
        peer.attach(socket);
      },
      (error: unknown) => {
        attempt.outcome = "failed";
        this.trace.record("failed", peer.id, describeError(error as Error));
        const isAbort = error === reason && controller.signal.aborted;
        if (!isAbort && !(error instanceof ConnectError) && !(error instanceof HandshakeError))
          this.report(`connect() failed with ${describeError(error as Error)}: ${(error as Error).stack}`);
        if (this.scenario.calm) this.report(`connect() failed with ${(error as Error).message}`);
      },
    );
  }

  #openSocket(plan: ConnectPlan, peer: LibraryPeer, address: ResolvedAddress) {
    if (address.kind !== "tcp") throw new Error("only TCP is simulated");
    const { host, port } = address;
    const handle = new SimulatedHandle(this.host, plan.host, (localPort) => {
      peer.port = localPort;
      if (plan.attack !== undefined) this.#attacks.set(localPort, plan.attack);
    });
    const { socket } = createSocket({ handle, pauseOnCreate: true });
    return socket.connect({ host, port, family: 4 });
  }

  #addPeer(name: string, plan: LibraryPeer["plan"]): LibraryPeer {
    const peer = new LibraryPeer(this.parties.size + 1, name, plan, {
      trace: this.trace,
      parties: this.parties,
      report: this.report,
      onPartner: (receiver, partner) => checkLibraryPartner(this, receiver, partner),
      onEnd: (receiver) => checkLibraryEnd(this, receiver),
    });
    this.parties.set(peer.id, peer);
    return peer;
  }

  #addPlain(name: string, plan: PeerPlan): Peer {
    const peer = new Peer(this.parties.size + 1, name, plan, this.network, this.parties, this.report);
    peer.onPartner = (partner) => checkLibraryPartner(this, peer, partner);
    peer.onEnd = () => checkLibraryEnd(this, peer);
    this.parties.set(peer.id, peer);
    return peer;
  }

  #operate({ kind }: LibraryOperation): void {
    this.trace.record("operation", kind);
    const index = this.#keys.findIndex(({ secret }) => secret === this.#key);
    if (kind === "remove-key" && index >= 0) this.#keys.splice(index, 1);
    else if (kind === "add-key" && index < 0) this.#keys.push({ name: "clients", secret: this.#key });
    else if (kind === "close") this.#close();
  }

  #close(): void {
    if (this.isClosing) return;
    this.isClosing = true;
    void this.server?.close().then(() => {
      this.isClosed = true;
    });
    this.daemon?.drain();
  }
}

/**
 * Replaces a method of an object.
 *
 * @param make - returns the new method; gets the old one, bound to the object.
 * @returns a function that restores the old one.
 */
function replaceMethod<Target extends object, Name extends keyof Target>(
  target: Target,
  name: Name,
  make: (method: Target[Name]) => Target[Name],
): () => void {
  const method = target[name];
  target[name] = make((method as (...args: unknown[]) => unknown).bind(target) as Target[Name]);
  return () => {
    target[name] = method;
  };
}

/**
 * Runs the world of a seed.
 *
 * @param scenario - what happens in it; the seed decides only when and in which order.
 */
export function runLibraryWorld(
  seed: number,
  engine: Engine,
  { scenario = makeLibraryScenario(new Random(seed, 0)), keepsText = false } = {},
): Promise<Outcome> {
  return runSimulation(new LibraryWorld(seed, scenario, engine, keepsText));
}
