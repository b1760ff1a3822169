/** Decides, from a seed, what happens in a world. Times are in ms since the start of the world. */
import type { PathProfile } from "./network.ts";
import type { Ending, PeerPlan } from "./peer.ts";
import type { Random } from "./random.ts";

/** What an adversary on the wire does to a connection between the two servers, in one direction. */
export interface Attack {
  readonly kind: "flip" | "repeat" | "swap" | "drop" | "inject" | "fin" | "rst";
  /** The segment to which it is done, from 0. */
  readonly segment: number;
  readonly direction: "to-server" | "to-client";
}

/** A program without the key, which connects to the decrypting server. */
export interface IntruderPlan {
  readonly at: number;
  readonly host: string;
  readonly kind: "silent" | "garbage" | "wrong-key" | "half-nonce" | "nonce-only" | "leaves";
  /** Time after which it leaves; `Infinity` if it never does. */
  readonly leavesAfter: number;
}

export interface ClientPlan {
  readonly at: number;
  readonly host: string;
  readonly peer: PeerPlan;
  readonly attack: Attack | undefined;
}

/** Something that the operator does. */
export interface Operation {
  readonly at: number;
  readonly kind:
    | "reload"
    | "remove-key"
    | "add-key"
    | "limit"
    | "probe"
    | "drain-encrypting"
    | "drain-decrypting"
    | "destroy-encrypting"
    | "destroy-decrypting";
  /** The new limit. */
  readonly limit: number;
}

/** A server without the key, to which the encrypting server connects first. */
export type Impostor = "silent" | "garbage" | "wrong-key" | "closes" | "resets";

/** How a target behaves, and from when on. */
export interface TargetState {
  readonly at: number;
  readonly state: "listens" | "refuse" | "ignore" | "unreachable";
}

export interface Scenario {
  /** True if nothing happens for which a connection should fail. */
  readonly calm: boolean;
  readonly weak: boolean;
  readonly requireForwardSecrecy: boolean;
  readonly timeout: number;
  readonly idleTimeout: number;
  readonly keepAlive: boolean;
  /** Slots of each server. */
  readonly encryptingLimit: number;
  readonly decryptingLimit: number;
  readonly keyLimit: number;
  /** Processes that share the limits on unauthenticated clients. */
  readonly processes: number;
  readonly keys: number;
  /** Time at which the key of the client expires; `Infinity` if it does not. */
  readonly expires: number;
  readonly sendProxy: "v1" | "v2" | undefined;
  readonly descriptorLimit: number;
  /** Descriptors that the process really has. */
  readonly descriptors: number;
  readonly stalls: { readonly probability: number; readonly max: number };
  readonly local: PathProfile;
  readonly wire: PathProfile;
  readonly clients: readonly ClientPlan[];
  readonly intruders: readonly IntruderPlan[];
  readonly targetPlans: readonly PeerPlan[];
  readonly targetStates: readonly TargetState[];
  /** Number of addresses of the target before the one that listens, each of which refuses. */
  readonly deadAddresses: number;
  readonly operations: readonly Operation[];
  readonly impostor: Impostor | undefined;
  /** Interval at which the target's name is looked up, in ms; `Infinity` if it has none. */
  readonly resolveInterval: number;
  /** What the lookups find, in turn: the target, another host that refuses, or an error. */
  readonly lookups: readonly ("target" | "other" | "fails")[];
  /** Whether the libuv takes a reset behind data for the end, as that of Node 20 and 22 does. */
  readonly takesHangUpForEnd: boolean;
  /** Outputs of the engine that other connections hold. */
  readonly heldOutputs: number;
  /** How the world ends. */
  readonly finale: "drain" | "destroy";
}

/** Time in which programs connect and act. */
export const ACTION_MS = 3000;

export function makeProfile(random: Random): PathProfile {
  return {
    delay: random.pick([0, 0, 0.125, 1, 20, 80]),
    jitter: random.pick([0, 0, 1, 8]),
    maxSegment: random.pick([1460, 1460, 65_536, 65_536, 300, 40]),
    sendBuffer: random.pick([200, 2048, 16_384, 262_144, 4_194_304]),
    receiveBuffer: random.pick([600, 4096, 65_536, 262_144, 4_194_304]),
    shortWrites: random.pick([0, 0, 0.1, 0.5]),
  };
}

export function makeTotal(random: Random, profiles: readonly PathProfile[]): number {
  if (random.chance(0.15)) return 0;
  const smallest = Math.min(
    ...profiles.map(({ maxSegment, sendBuffer }) => Math.min(maxSegment, sendBuffer)),
  );
  // Few segments: many small worlds find more than one large one.
  const max = Math.min(400_000, Math.max(64, smallest * 24));
  return random.magnitude(8, Math.min(400_000, random.chance(0.1) ? max * 4 : max));
}

function makeEnding(random: Random, calm: boolean, isTarget: boolean): Ending {
  // If both sides wait for the end of the other, neither ends.
  if (calm) return isTarget && random.chance(0.5) ? "last" : "orderly";
  if (random.chance(0.6)) return random.chance(isTarget ? 0.5 : 0.25) ? "last" : "orderly";
  if (random.chance(0.2)) return "never";
  return {
    action: random.pick(["close", "close", "reset", "reset", "vanish"]),
    after: random.chance(0.3) ? 0 : random.magnitude(1, ACTION_MS),
  };
}

export function makePeerPlan(
  random: Random,
  calm: boolean,
  isTarget: boolean,
  profiles: readonly PathProfile[],
): PeerPlan {
  const total = makeTotal(random, profiles);
  const maxWrite = random.magnitude(1, 65_536);
  const isSlow = random.chance(0.15);
  const maxRead = isSlow ? random.magnitude(256, 65_536) : 65_536;
  return {
    total,
    maxWrite: Math.max(maxWrite, Math.ceil(total / 40)),
    writeInterval: random.chance(0.3) ? random.magnitude(1, 64) : 0,
    maxRead,
    readInterval:
      !calm && random.chance(0.06) ? Number.POSITIVE_INFINITY : isSlow ? random.magnitude(1, 16) : 0,
    readDelay: random.chance(0.1) ? random.magnitude(1, 1000) : 0,
    ending: makeEnding(random, calm, isTarget),
  };
}

export function makeAttack(random: Random): Attack {
  return {
    kind: random.pick(["flip", "repeat", "swap", "drop", "inject", "fin", "rst"]),
    segment: random.chance(0.4) ? random.below(3) : random.below(20),
    direction: random.pick(["to-server", "to-client"]),
  };
}

export function makeScenario(random: Random): Scenario {
  const calm = random.chance(0.25);
  const weak = !random.chance(0.03);
  const local = makeProfile(random);
  const wire = makeProfile(random);
  const profiles = [local, wire];
  const isHostile = !calm && random.chance(0.3);
  const isCrowded = random.chance(0.25);
  const count = random.chance(0.5) ? random.between(1, 2) : random.between(1, 8);
  const span = random.pick([0, 0, 10, 500, ACTION_MS]);
  const client = (): ClientPlan => ({
    at: random.below(span + 1),
    host: `192.0.2.${random.between(1, 4)}`,
    peer: makePeerPlan(random, calm, false, profiles),
    attack: isHostile && random.chance(0.6) ? makeAttack(random) : undefined,
  });
  const intruder = (): IntruderPlan => ({
    at: random.below(span + 1),
    host: `198.51.100.${random.between(1, 4)}`,
    kind: random.pick(["silent", "garbage", "wrong-key", "half-nonce", "nonce-only", "leaves"]),
    leavesAfter: random.chance(0.3) ? Number.POSITIVE_INFINITY : random.magnitude(1, 8192),
  });
  const operation = (): Operation => ({
    at: random.below(ACTION_MS),
    kind: random.pick([
      "reload",
      "reload",
      "remove-key",
      "add-key",
      "limit",
      "limit",
      "probe",
      "drain-encrypting",
      "drain-decrypting",
      "destroy-encrypting",
      "destroy-decrypting",
    ]),
    limit: random.between(0, 4),
  });
  const list = <Item>(length: number, make: () => Item) => Array.from({ length }, make);
  const hasIntruders = !calm && random.chance(0.2);
  const processes = hasIntruders && random.chance(0.5) ? 512 : 1;
  const hasFewDescriptors = !calm && random.chance(0.08);
  const limit = () => (isCrowded && !calm ? random.between(1, 3) : Number.POSITIVE_INFINITY);
  const targetState = (): TargetState => ({
    at: random.chance(0.5) ? 0 : random.below(ACTION_MS),
    state: random.pick(["listens", "refuse", "ignore", "unreachable"]),
  });
  return {
    calm,
    weak,
    requireForwardSecrecy: !weak && random.chance(0.2),
    timeout: calm ? 30_000 : random.pick([5000, 5000, 5000, 300, Number.POSITIVE_INFINITY]),
    idleTimeout: calm || random.chance(0.85) ? Number.POSITIVE_INFINITY : random.magnitude(16, 8192),
    keepAlive: random.chance(0.7),
    encryptingLimit: limit(),
    decryptingLimit: limit(),
    keyLimit: random.chance(0.1) ? limit() : Number.POSITIVE_INFINITY,
    processes,
    keys: random.chance(0.2) ? random.between(2, 40) : 1,
    expires: !calm && random.chance(0.05) ? random.below(ACTION_MS) : Number.POSITIVE_INFINITY,
    sendProxy: random.chance(0.1) ? random.pick(["v1", "v2"]) : undefined,
    descriptorLimit: hasFewDescriptors ? random.between(30, 60) : 1024,
    descriptors: hasFewDescriptors && random.chance(0.5) ? random.between(4, 24) : 1024,
    stalls: random.pick([
      { probability: 0, max: 0 },
      { probability: 0, max: 0 },
      { probability: 0.05, max: 20 },
      { probability: 0.01, max: calm ? 50 : 4000 },
    ]),
    local,
    wire,
    clients: list(count, client),
    intruders: hasIntruders ? list(random.magnitude(1, 24), intruder) : [],
    targetPlans: list(count, () => makePeerPlan(random, calm, true, profiles)),
    targetStates: !calm && random.chance(0.15) ? list(random.between(1, 3), targetState) : [],
    deadAddresses: random.chance(0.1) ? random.between(1, 2) : 0,
    operations: !calm && random.chance(0.3) ? list(random.between(1, 4), operation) : [],
    impostor:
      !calm && random.chance(0.08)
        ? random.pick(["silent", "garbage", "wrong-key", "closes", "resets"])
        : undefined,
    resolveInterval: !calm && random.chance(0.1) ? random.magnitude(8, 1024) : Number.POSITIVE_INFINITY,
    lookups: list(random.between(1, 4), () => random.pick(["target", "target", "other", "fails"])),
    takesHangUpForEnd: random.chance(0.7),
    heldOutputs: random.chance(0.1) ? random.pick([31, 32, 39, 40]) : 0,
    finale: random.chance(0.5) ? "drain" : "destroy",
  };
}

/** A scenario in which nothing happens, to be completed. */
export const PLAIN: Scenario = {
  calm: false,
  weak: true,
  requireForwardSecrecy: false,
  timeout: 5000,
  idleTimeout: Number.POSITIVE_INFINITY,
  keepAlive: true,
  encryptingLimit: Number.POSITIVE_INFINITY,
  decryptingLimit: Number.POSITIVE_INFINITY,
  keyLimit: Number.POSITIVE_INFINITY,
  processes: 1,
  keys: 1,
  expires: Number.POSITIVE_INFINITY,
  sendProxy: undefined,
  descriptorLimit: 1024,
  descriptors: 1024,
  stalls: { probability: 0, max: 0 },
  local: {
    delay: 0,
    jitter: 0,
    maxSegment: 65_536,
    sendBuffer: 262_144,
    receiveBuffer: 262_144,
    shortWrites: 0,
  },
  wire: {
    delay: 1,
    jitter: 0,
    maxSegment: 1460,
    sendBuffer: 262_144,
    receiveBuffer: 262_144,
    shortWrites: 0,
  },
  clients: [],
  intruders: [],
  targetPlans: [],
  targetStates: [],
  deadAddresses: 0,
  operations: [],
  impostor: undefined,
  resolveInterval: Number.POSITIVE_INFINITY,
  lookups: ["target"],
  takesHangUpForEnd: true,
  heldOutputs: 0,
  finale: "drain",
};
