/** What worlds of both kinds have: a process on a network in memory, its clock and its trace. */
import type { Engine } from "../../src/protocol/engine/engine.ts";
import { ExponentPool } from "../../src/tunnel/exponent-pool.ts";
import { makeTamper } from "./adversary.ts";
import { Agenda } from "./agenda.ts";
import { SimulatedClock } from "./clock.ts";
import { EventLoop } from "./event-loop.ts";
import { Descriptors, type Endpoint, Network, type SocketAddress } from "./network.ts";
import { forgetInteractive, holdOutputs } from "./pools.ts";
import { Random } from "./random.ts";
import { drive, MAX_VIOLATIONS, nextStart, type Simulation } from "./run-simulation.ts";
import type { Attack, Scenario } from "./scenario.ts";
import type { Host } from "./simulated-handle.ts";
import { type Machine, setMachine } from "./system.ts";
import { Trace } from "./trace.ts";

/** What scenarios of both kinds say of the process and its network. */
type ProcessScenario = Pick<
  Scenario,
  "descriptorLimit" | "descriptors" | "heldOutputs" | "local" | "stalls" | "takesHangUpForEnd" | "wire"
>;

/** The address whose connections carry encrypted data, at which the adversary is. */
export const DECRYPTING: SocketAddress = { host: "10.0.0.2", port: 8023 };

export abstract class BaseWorld<Plan extends ProcessScenario> implements Simulation {
  readonly scenario: Plan;
  readonly engine: Engine;
  readonly random: Random;
  readonly clock = new SimulatedClock(nextStart());
  readonly trace: Trace;
  readonly network: Network;
  readonly descriptors: Descriptors;
  readonly violations: string[] = [];
  readonly exponents = new ExponentPool();
  /** Ports of clients, or of the encrypting server, whose connections the adversary has changed. */
  readonly attacked = new Set<number>();
  protected readonly loop: EventLoop;
  protected readonly host: Host;
  /** Endpoints of connections with the process under test, as the kernel lists them. */
  #endpoints: Endpoint[] = [];

  constructor(seed: number, scenario: Plan, engine: Engine, keepsText: boolean) {
    this.engine = engine;
    this.scenario = scenario;
    this.random = new Random(seed, 1);
    this.trace = new Trace(this.clock, keepsText);
    const agenda = new Agenda();
    this.network = new Network(this.clock, agenda, this.random, this.trace, (_, to) =>
      to.host === DECRYPTING.host ? scenario.wire : scenario.local,
    );
    this.loop = new EventLoop(this.clock, agenda, this.random, scenario.stalls);
    this.descriptors = new Descriptors(scenario.descriptors);
    this.host = {
      network: this.network,
      loop: this.loop,
      descriptors: this.descriptors,
      takesHangUpForEnd: scenario.takesHangUpForEnd,
    };
    setMachine({
      descriptorLimit: scenario.descriptorLimit,
      endpoints: () => this.#listedEndpoints(),
      endpointOf: (descriptor) => this.descriptors.endpoint(descriptor),
      lookup: () => this.lookUp(),
      complete: (callback) => this.network.after(0.25, () => this.loop.post(callback)),
    });
  }

  abstract readonly connections: number;

  readonly report = (message: string): void => {
    this.trace.record("violation", message);
    if (this.violations.length < MAX_VIOLATIONS) this.violations.push(message);
  };

  async run(): Promise<void> {
    forgetInteractive(() => {
      this.clock.now += 1024;
    });
    const releaseOutputs = holdOutputs(this.engine.workspace.outputs, this.scenario.heldOutputs);
    this.network.onEstablished = (near, far) => {
      this.#endpoints.push(near, far);
      this.onEstablished(near, far);
    };
    await this.play();
    releaseOutputs();
    this.checkAtEnd();
  }

  /** Runs the scenario until everything has ended. */
  protected abstract play(): Promise<void>;

  /** Checks that everything was given back. */
  protected abstract checkAtEnd(): void;

  /** Called when a connection is established. */
  protected abstract onEstablished(near: Endpoint, far: Endpoint): void;

  /** Looks up the name of the target. */
  protected abstract lookUp(): ReturnType<Machine["lookup"]>;

  protected drive(until: number): Promise<void> {
    return drive(this.loop, this, until);
  }

  /** Lets the adversary attack a connection; `port` is added to `attacked` when it changes something. */
  protected attack(attack: Attack, near: Endpoint, far: Endpoint, port: number): void {
    const sender = attack.direction === "to-server" ? near : far;
    sender.tamper = makeTamper(attack, this.random, () => {
      this.trace.record(`attack-${attack.kind}`, sender.id);
      this.attacked.add(port);
    });
  }

  *#listedEndpoints(): Generator<Endpoint> {
    this.#endpoints = this.#endpoints.filter((endpoint) => endpoint.isListed);
    yield* this.#endpoints;
  }
}
