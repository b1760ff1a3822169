/** The cases of the differential test: what a client and a target do in one connection, generated from a seed. */
import { createHash } from "node:crypto";
import { seeded } from "../support/seeded.ts";

/** Options of the daemons under test; `silent` is for clients that stop in the handshake, and has a short timeout. */
export const CONFIGURATIONS = [
  "default",
  "weak",
  "forward-secrecy",
  "no-keepalive",
  "silent",
  "unreachable",
] as const;
export type Configuration = (typeof CONFIGURATIONS)[number];

/** The value that we send, with a valid MAC: a power of the generator, or a number. */
export type PublicValue = "power" | "1" | "0" | "p-1" | "p" | "p+1" | "max";

/** What is wrong with the handshake. */
export type HandshakeFault =
  | { readonly kind: "wrong-key" | "mac-zero" | "mac-of-other-side" | "other-nonce" | "garbage" }
  /** Flips one bit of our 320 bytes. */
  | { readonly kind: "flip"; readonly bit: number };

/** What is wrong with the packet number `at`, and what follows it. */
export interface PacketFault {
  readonly kind: (typeof PACKET_FAULTS)[number];
  readonly at: number;
  /** The bit to flip, the length to claim, or the difference of the packet number. */
  readonly argument: number;
}

const PACKET_FAULTS = [
  "flip",
  "length",
  "number",
  "drop",
  "repeat",
  "swap",
  "random",
  "zeros",
  "other-direction",
  "insert-byte",
  "padding",
] as const;

/** The part of the protocol that the test plays: a client of `spiped -d`, or a server for `spiped -e`. */
export type Role = "client" | "server";

/** One case. Sizes and positions are in bytes; "we" is the test. */
export interface Case {
  readonly seed: number;
  readonly index: number;
  readonly role: Role;
  readonly configuration: Configuration;
  readonly value: PublicValue;
  readonly handshakeFault: HandshakeFault | undefined;
  /** Sizes of the data in our packets. */
  readonly packets: readonly number[];
  readonly packetFault: PacketFault | undefined;
  /** We send our nonce before we receive the daemon's. */
  readonly isEager: boolean;
  /** We send our message and packets before we receive the daemon's message. */
  readonly isJoined: boolean;
  /** We send only this many bytes; `Infinity` for all. */
  readonly length: number;
  /** Random bytes after everything else. */
  readonly excess: number;
  /** Positions in our stream at which a segment ends. */
  readonly cuts: readonly number[];
  /** Pause between two segments, in ms. */
  readonly pause: number;
  /** What we do when we have sent everything. */
  readonly end: "fin" | "reset" | "hold";
  /** If true, we wait until nothing more arrives before we end. */
  readonly endsLate: boolean;
  /** The plaintext side: the target of `spiped -d`, or the client of `spiped -e`. */
  readonly plaintext: {
    /** Bytes that it sends. */
    readonly answer: number;
    /** When it sends them: immediately, when it has received data, or at the end of what it receives. */
    readonly when: "immediately" | "data" | "end";
    /** What it does then; `echo` ends its direction when the other has ended. */
    readonly end: "fin" | "echo" | "reset" | "hold";
  };
}

/** Size of the handshake in each direction, and of a packet. */
export const NONCE = 32;
export const HANDSHAKE = 320;
export const PACKET = 1060;

/** Returns a number for a text, so that cases with neighbouring numbers have nothing in common. */
function hashOf(text: string): number {
  return createHash("sha256").update(text).digest().readUInt32BE();
}

/** Returns the case with this number. */
export function makeCase(seed: number, index: number): Case {
  const random = seeded(hashOf(`${seed}:${index}`));
  const chance = (probability: number) => random() < probability;
  const integer = (end: number) => Math.floor(random() * end);
  const pick = <T>(list: readonly T[]): T => list[integer(list.length)]!;
  const weighted = <T>(table: readonly (readonly [number, T])[]): T => {
    let left = random() * table.reduce((sum, [weight]) => sum + weight, 0);
    return (table.find(([weight]) => (left -= weight) < 0) ?? table[0]!)[1];
  };

  const role: Role = chance(0.35) ? "server" : "client";
  const configuration = weighted<Configuration>([
    [60, "default"],
    [10, "weak"],
    [10, "forward-secrecy"],
    [8, "no-keepalive"],
    [4, "silent"],
    [role === "client" ? 4 : 0, "unreachable"],
  ]);
  const value = weighted<PublicValue>([
    [60, "power"],
    [20, "1"],
    [5, "0"],
    [5, "p-1"],
    [4, "p"],
    [3, "p+1"],
    [3, "max"],
  ]);
  const handshakeFault = chance(0.2)
    ? weighted<HandshakeFault>([
        [1, { kind: "wrong-key" }],
        [1, { kind: "mac-zero" }],
        [1, { kind: "mac-of-other-side" }],
        [1, { kind: "other-nonce" }],
        [1, { kind: "garbage" }],
        [5, { kind: "flip", bit: integer(HANDSHAKE * 8) }],
      ])
    : undefined;
  const size = () =>
    weighted([
      [3, 1 + integer(1024)],
      [1, 1],
      [1, 1024],
    ]);
  const packets = Array.from({ length: integer(7) }, size);
  const isPacketFault = packets.length > 0 && chance(0.35);
  const kind = pick(PACKET_FAULTS);
  const packetFault = isPacketFault
    ? { kind, at: integer(packets.length), argument: argumentOf(kind) }
    : undefined;
  function argumentOf(of: PacketFault["kind"]): number {
    if (of === "flip") return integer(PACKET * 8);
    if (of === "number") return pick([1, -1, 256, 2 ** 32]);
    return pick([0, 1025, 2 ** 16, 2 ** 31, 2 ** 32 - 1]);
  }
  const total = HANDSHAKE + PACKET * packets.length;
  // Of a value that has two results, we learn which one from the daemon's first packet.
  const learnsKeys = value === "p-1";
  const cutting = pick(["whole", "few", "many", "bytes"]);
  const first = integer(total);
  const cuts =
    cutting === "bytes"
      ? Array.from({ length: 64 }, (_, i) => first + i)
      : Array.from({ length: { whole: 0, few: 3, many: 20 }[cutting]! }, () => 1 + integer(total));
  const length = chance(0.35) ? integer(chance(0.5) ? HANDSHAKE + 1 : total + 1) : Number.POSITIVE_INFINITY;
  const it: Case = {
    seed,
    index,
    role,
    configuration,
    value,
    handshakeFault,
    packets,
    packetFault,
    isEager: chance(0.5),
    isJoined: (value === "1" || value === "0") && chance(0.5),
    length,
    // Not if the rest of the nonce is missing, since this would complete it.
    excess: chance(0.1) && length >= NONCE ? 1 + integer(2000) : 0,
    cuts: [...new Set(cuts)].sort((a, b) => a - b),
    pause: pick([0, 0, 1]),
    end: weighted([
      [6, "fin"],
      [2, "reset"],
      [2, "hold"],
    ]),
    endsLate: chance(0.5),
    plaintext: {
      answer:
        weighted([
          [1, 0],
          [3, 1 + integer(1024)],
          [2, 1 + integer(8000)],
          [1, integer(100_000)],
        ]) + (learnsKeys ? 1 : 0),
      when: learnsKeys ? "immediately" : pick(["immediately", "data", "end"]),
      end: weighted([
        [3, "fin"],
        [4, "echo"],
        [learnsKeys ? 0 : 2, "reset"],
        [1, "hold"],
      ]),
    },
  };
  if (configuration === "silent")
    return { ...it, length: integer(HANDSHAKE), excess: 0, end: "hold", endsLate: false };
  if (it.role === "server" && it.plaintext.end === "reset") {
    // Only a reset that comes after the handshake, since it is not defined how far the daemon is before.
    const { answer } = it.plaintext;
    return { ...it, plaintext: { answer, when: "data", end: "reset" } };
  }
  return it;
}

/** Returns the bytes that a case uses for a purpose; they are the same in each run. */
export function bytesOf({ seed, index }: Case, purpose: string, length: number): Buffer {
  return createHash("shake256", { outputLength: Math.max(1, length) })
    .update(`${seed}:${index}:${purpose}`)
    .digest()
    .subarray(0, length);
}
