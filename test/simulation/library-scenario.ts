/** Decides, from a seed, what happens in a world of the library. Times are in ms since the start of the world. */
import type { PathProfile } from "./network.ts";
import type { PeerPlan } from "./peer.ts";
import type { Random } from "./random.ts";
import {
  ACTION_MS,
  type Attack,
  type ClientPlan,
  makeAttack,
  makePeerPlan,
  makeProfile,
  makeTotal,
  PLAIN,
  type TargetState,
} from "./scenario.ts";

/** How a program writes to a stream. */
export type WriterKind =
  /** One write at a time: the next one follows the callback. */
  | "callback"
  /** Until `write()` returns false, then from 'drain' on. */
  | "drain"
  /** All at once, whatever `write()` returns. */
  | "flood"
  /** Several writes between `cork()` and `uncork()`. */
  | "cork"
  /** With `pipe()` from another stream. */
  | "pipe";

/** How a program reads a stream. */
export type ReaderKind =
  /** With 'data' and, if it is slow, `pause()` and `resume()`. */
  | "data"
  /** With 'readable' and `read()`. */
  | "readable"
  /** With `read(size)`. */
  | "sized"
  /** With `for await`, which destroys the stream when it has ended. */
  | "iteration"
  /** With an iterator that does not destroy the stream. */
  | "gentle-iteration"
  /** With `pipe()` to another stream. */
  | "pipe";

/** How a program ends its stream. */
export type LibraryEnding =
  /** Calls `end()` once everything is written. */
  | "orderly"
  /** The same, with the last data. */
  | "with-data"
  /** Ends only after the other side has. */
  | "last"
  /** Disposes of the stream, as `await using` does, once everything is written. */
  | "dispose"
  | "never"
  | BreakOff;

/** How a program breaks off, and when. */
export interface BreakOff {
  readonly action: "destroy" | "destroy-error" | "end-destroy" | "dispose";
  /** Time after which it does so, or the number of bytes received, at which it does so as it handles them. */
  readonly after: number;
  readonly unit: "ms" | "bytes";
}

/** What a program does with a stream of the library. */
export interface LibraryPlan {
  readonly total: number;
  readonly maxWrite: number;
  readonly writeInterval: number;
  readonly writer: WriterKind;
  /** True if it writes strings. */
  readonly strings: boolean;
  readonly reader: ReaderKind;
  readonly maxRead: number;
  /** Time between two reads; `Infinity` if it never reads. */
  readonly readInterval: number;
  readonly readDelay: number;
  readonly ending: LibraryEnding;
}

/** A call of `connect()`. */
export interface ConnectPlan {
  readonly at: number;
  readonly host: string;
  readonly program: LibraryPlan;
  readonly allowHalfOpen: boolean;
  /** Time after which its signal aborts; undefined if it has no signal. */
  readonly abortAfter: number | undefined;
  /** True if it holds a key that the server does not know. */
  readonly hasWrongKey: boolean;
  readonly attack: Attack | undefined;
}

/** Something that the program with the server does. */
export interface LibraryOperation {
  readonly at: number;
  readonly kind: "remove-key" | "add-key" | "close";
}

export interface LibraryScenario {
  /** True if nothing happens for which a connection should fail. */
  readonly calm: boolean;
  /** What `connect()` talks to; `plain` if programs without the library talk to its server instead. */
  readonly topology: "library" | "daemon" | "plain";
  readonly weak: boolean;
  readonly requireForwardSecrecy: boolean;
  readonly timeout: number;
  readonly serverTimeout: number;
  readonly keepAlive: boolean;
  /** `allowHalfOpen` of the library's server. */
  readonly allowHalfOpen: boolean;
  /** Number of the server's keys; 0 if it has a single one, without a name. */
  readonly keys: number;
  /** Time at which the key of the clients expires; `Infinity` if it does not. */
  readonly expires: number;
  readonly descriptorLimit: number;
  readonly descriptors: number;
  readonly stalls: { readonly probability: number; readonly max: number };
  readonly local: PathProfile;
  readonly wire: PathProfile;
  readonly connects: readonly ConnectPlan[];
  /** Clients without the library, which connect to the encrypting server. */
  readonly plains: readonly ClientPlan[];
  /** What the server's streams do, in the order of their connections. */
  readonly served: readonly LibraryPlan[];
  /** What the targets of the decrypting daemon do. */
  readonly targets: readonly PeerPlan[];
  /** How the address to which the clients connect behaves. */
  readonly states: readonly TargetState[];
  readonly operations: readonly LibraryOperation[];
  /** Whether the libuv takes a reset behind data for the end, as that of Node 20 and 22 does. */
  readonly takesHangUpForEnd: boolean;
  readonly heldOutputs: number;
}

function makeLibraryEnding(random: Random, calm: boolean, isTarget: boolean): LibraryEnding {
  if (calm)
    return isTarget
      ? random.pick(["last", "last", "orderly", "with-data"])
      : random.pick(["orderly", "with-data"]);
  if (random.chance(0.5))
    return random.chance(isTarget ? 0.5 : 0.25) ? "last" : random.pick(["orderly", "with-data"]);
  if (random.chance(0.25)) return "dispose";
  if (random.chance(0.2)) return "never";
  return {
    action: random.pick(["destroy", "destroy-error", "end-destroy", "dispose"]),
    after: random.chance(0.3) ? 0 : random.magnitude(1, ACTION_MS),
    unit: random.pick(["ms", "ms", "bytes"]),
  };
}

function makeLibraryPlan(
  random: Random,
  calm: boolean,
  isTarget: boolean,
  profiles: readonly PathProfile[],
): LibraryPlan {
  const total = makeTotal(random, profiles);
  const isSlow = random.chance(0.25);
  const ending = makeLibraryEnding(random, calm, isTarget);
  return {
    total,
    maxWrite: Math.max(random.magnitude(8, 100_000), Math.ceil(total / 40)),
    writeInterval: random.chance(0.3) ? random.magnitude(1, 64) : 0,
    writer: random.pick(["callback", "drain", "flood", "cork", "pipe"]),
    strings: random.chance(0.1),
    // It destroys the stream at the end of what it receives, which may be before it has sent everything.
    reader: random.pick([
      "data",
      "data",
      "readable",
      "sized",
      "gentle-iteration",
      "pipe",
      calm ? "data" : "iteration",
    ]),
    maxRead: random.magnitude(isSlow ? 256 : 1024, 65_536),
    readInterval:
      !calm && random.chance(0.06) ? Number.POSITIVE_INFINITY : isSlow ? random.magnitude(1, 16) : 0,
    readDelay: random.chance(0.2) ? random.magnitude(1, 1000) : 0,
    ending,
  };
}

export function makeLibraryScenario(random: Random): LibraryScenario {
  const calm = random.chance(0.3);
  const weak = !random.chance(0.06);
  const local = makeProfile(random);
  const wire = makeProfile(random);
  const topology = random.pick(["library", "library", "daemon", "plain"] as const);
  const profiles = topology === "library" ? [wire] : [local, wire];
  const isHostile = !calm && random.chance(0.35);
  const count = random.chance(0.6) ? random.between(1, 2) : random.between(1, 6);
  const span = random.pick([0, 0, 10, 500, ACTION_MS]);
  const list = <Item>(length: number, make: () => Item) => Array.from({ length }, make);
  const attack = () => (isHostile && random.chance(0.7) ? makeAttack(random) : undefined);
  const start = () => ({
    at: random.below(span + 1),
    host: `192.0.2.${random.between(1, 4)}`,
    attack: attack(),
  });
  const mayHalfOpen = () => random.chance(0.75);
  const connect = (): ConnectPlan => ({
    ...start(),
    program: makeLibraryPlan(random, calm, false, profiles),
    allowHalfOpen: mayHalfOpen() || calm,
    abortAfter: !calm && random.chance(0.2) ? random.magnitude(1, 400) - 1 : undefined,
    hasWrongKey: !calm && random.chance(0.05),
  });
  const operation = (): LibraryOperation => ({
    at: random.below(ACTION_MS),
    kind: random.pick(["remove-key", "add-key", "close"]),
  });
  const state = (): TargetState => ({
    at: random.chance(0.5) ? 0 : random.below(ACTION_MS),
    state: random.pick(["listens", "refuse", "ignore", "unreachable"]),
  });
  const keys = random.chance(0.4) ? random.between(1, 20) : 0;
  const hasFewDescriptors = !calm && random.chance(0.05);
  return {
    calm,
    topology,
    weak,
    requireForwardSecrecy: !weak && random.chance(0.2),
    // Of a server that was reset in the middle of a handshake, a client without a timeout never learns.
    timeout: calm ? 30_000 : random.pick([5000, 5000, 300, 100, isHostile ? 300 : Number.POSITIVE_INFINITY]),
    serverTimeout: calm ? 30_000 : random.pick([5000, 5000, 300, 100]),
    keepAlive: random.chance(0.7),
    allowHalfOpen: mayHalfOpen() || calm,
    keys,
    expires: !calm && keys > 0 && random.chance(0.2) ? random.below(ACTION_MS) : Number.POSITIVE_INFINITY,
    descriptorLimit: hasFewDescriptors ? random.between(30, 60) : 1024,
    descriptors: hasFewDescriptors && random.chance(0.5) ? random.between(2, 12) : 1024,
    stalls: random.pick([
      { probability: 0, max: 0 },
      { probability: 0, max: 0 },
      { probability: 0.05, max: 20 },
      { probability: 0.01, max: calm ? 50 : 4000 },
    ]),
    local,
    wire,
    connects: topology === "plain" ? [] : list(count, connect),
    plains:
      topology === "plain"
        ? list(count, () => ({ ...start(), peer: makePeerPlan(random, calm, false, profiles) }))
        : [],
    served: topology === "daemon" ? [] : list(count, () => makeLibraryPlan(random, calm, true, profiles)),
    targets: topology === "daemon" ? list(count, () => makePeerPlan(random, calm, true, profiles)) : [],
    states: !calm && random.chance(0.1) ? list(random.between(1, 3), state) : [],
    operations: !calm && keys > 0 && random.chance(0.3) ? list(random.between(1, 4), operation) : [],
    takesHangUpForEnd: random.chance(0.7),
    heldOutputs: random.chance(0.1) ? random.pick([31, 32, 39, 40]) : 0,
  };
}

/** A scenario in which nothing happens: what a failing one differs in is what matters. */
export const PLAIN_LIBRARY: LibraryScenario = {
  calm: false,
  topology: "library",
  weak: true,
  requireForwardSecrecy: false,
  timeout: 5000,
  serverTimeout: 5000,
  keepAlive: true,
  allowHalfOpen: true,
  keys: 0,
  expires: Number.POSITIVE_INFINITY,
  descriptorLimit: 1024,
  descriptors: 1024,
  stalls: PLAIN.stalls,
  local: PLAIN.local,
  wire: PLAIN.wire,
  connects: [],
  plains: [],
  served: [],
  targets: [],
  states: [],
  operations: [],
  takesHangUpForEnd: true,
  heldOutputs: 0,
};
