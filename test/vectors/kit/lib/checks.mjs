/** The lists of checks: each has a name, and a function that gets what is under test and a function for notes. */
import * as session from "./session-checks.mjs";
import { checkHandshake, checkKeyFile, checkPackets } from "./vector-checks.mjs";
import { handshakes, isPlayable, optionsOf, packets } from "./vectors.mjs";

const handshakeCheck = (vector) => [
  `handshakes.json: ${vector.name}`,
  (rig, note) => checkHandshake(rig, vector, note),
];
const packetCheck = (vector) => [
  `packets.json: ${vector.name}`,
  (rig, note) => checkPackets(rig, vector, note),
];

/** Returns the check of `spipe` with a key file. */
export const keyFileCheck = (vector) => [
  `key-files.json: ${vector.name}`,
  (rig, note) => checkKeyFile(rig, vector, note),
];

/** The check of two programs under test with each other. */
export const PAIR_CHECK = ["data and half-close", session.checkPair];

const garbage = ["a peer that sends random bytes is refused", session.checkGarbage];
const common = (side) => [
  [`the ${side}'s nonce comes at once, and nothing after it`, session.checkNonce],
  ["each session has another y", session.checkFreshValues],
  ["a message of another session is refused", session.checkReplay],
  garbage,
  ...Object.entries(session.SEGMENTATIONS).map(([name, send]) => [
    `everything arrives ${name}`,
    (rig) => session.checkSegmentation(rig, send),
  ]),
  ...session.CUTS.map((cut) => [
    `everything arrives in two pieces, cut at ${cut}`,
    (rig) =>
      session.checkSegmentation(rig, (channel, bytes) =>
        channel.writePieces([bytes.subarray(0, cut), bytes.subarray(cut)], 3),
      ),
  ]),
  ["message and packets arrive in one piece", session.checkJoined],
  ["data of many sizes is sent in legal packets", session.checkSizes],
  ["packets of all sizes are received", session.checkAllSizes],
  ["2 MiB in both directions", session.checkBulk],
  ["the peer half-closes first", (rig) => session.checkHalfClose(rig, "peer")],
  ["the plaintext side half-closes first", (rig) => session.checkHalfClose(rig, "plaintext")],
  ["data with an end behind it arrives as a whole", session.checkDataThenEnd],
  ["the peer resets the connection", (rig) => session.checkReset(rig, "peer")],
  ["the plaintext side resets the connection", (rig) => session.checkReset(rig, "plaintext")],
  ["20 sessions at the same time", session.checkConcurrent],
];

/** Options that cases of handshakes.json ask for. */
const OPTIONS = [[], ["-f"], ["-g"]];
const handshakesWith = (options) =>
  handshakes.filter((vector) => optionsOf(vector).join() === options.join());

/** Returns the checks of a daemon in one role, by the options that it is started with. */
export function daemonChecks(side) {
  const groups = OPTIONS.map((options) => ({
    options,
    checks: handshakesWith(options)
      .filter((vector) => vector.side === side)
      .map(handshakeCheck),
  }));
  groups[0].checks.push(...packets.filter(isPlayable).map(packetCheck), ...common(side));
  groups.push({
    options: ["-o", "1"],
    checks: [0, 31, 32, 319].map((size) => [
      `a peer that stops after ${size} bytes of the handshake is disconnected`,
      (rig) => session.checkTimeout(rig, size),
    ]),
  });
  return groups;
}

/** Cases for `spipe`, which each need a process; `spiped -e`, which has the same role, gets all. */
const PIPE_CASES = new Set([
  "client: both strong",
  "client: this side weak",
  "client: the peer weak",
  "client: both weak",
  "client: the peer sends 0",
  "client: strict, the peer strong",
  "client: the peer has another key",
  "client: flipped bit in the first byte of y",
  "client: flipped bit in the last byte of the tag",
  "client: the peer sends p",
  "client: this side's own message reflected",
  "client: cut after 31 bytes",
  "client: cut after 319 bytes",
  "client: strict, the peer weak",
  "one packet of 1024 bytes",
  "flipped bit in the data",
  "a length of 1025",
  "a packet replayed",
]);

/** Returns the checks of `spipe`, by the options that it is started with. */
export function pipeChecks() {
  const isForPipe = ({ name }) => PIPE_CASES.has(name);
  const groups = OPTIONS.map((options) => ({
    options,
    checks: handshakesWith(options).filter(isForPipe).map(handshakeCheck),
  }));
  groups[0].checks.push(
    ...packets.filter(isForPipe).map(packetCheck),
    garbage,
    ["packets of all sizes are received", session.checkAllSizes],
    ["2 MiB in both directions", session.checkBulk],
    ["the peer half-closes first", (rig) => session.checkHalfClose(rig, "peer")],
    ["standard input ends first", (rig) => session.checkHalfClose(rig, "plaintext")],
  );
  return groups;
}
