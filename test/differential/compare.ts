/**
 * Compares what implementations did in a case. They must do the same, except for the differences that the README
 * documents; each is a class here that says what Tarsnap's spiped may do and what this project's must do.
 */
import { bytesOf, type Case, HANDSHAKE, NONCE, PACKET } from "./cases.ts";
import type { End, Observation } from "./connection.ts";
import type { Implementation } from "./daemons.ts";
import { type Meaning, meaningOf } from "./stream.ts";

/** A class of cases in which the implementations may differ. */
export type Difference =
  | "target unreachable"
  | "not authenticated"
  | "several ends at once"
  | "reset on the encrypted side"
  | "wrong packet"
  | "truncated packet"
  | "reset on the plaintext side";

/** An observation with what the client's bytes mean. */
interface Subject {
  readonly case: Case;
  readonly seen: Observation;
  readonly meaning: Meaning;
  readonly answer: Buffer;
}

/** Answers up to this size fit into the buffers of the daemon's socket, so they have arrived before a reset. */
const BUFFERED = 8000;

const isClosed = (end: End | undefined) => end === "fin" || end === "reset";

/** Returns what every implementation must do, and a description of what one did instead. */
function* findViolations({ case: it, seen, meaning, answer }: Subject): Generator<string> {
  const { wire, plaintext } = seen;
  const isCut = wire.end === "reset" || wire.end === "own reset";
  if (wire.bytes < NONCE) yield `sent ${wire.bytes} bytes of a nonce`;
  if (wire.message === "invalid") yield "sent an invalid handshake message";
  if (wire.message === "incomplete" && !isCut) yield "sent an incomplete handshake message";
  if (wire.data === undefined) yield "sent an invalid packet";
  else if (!isPrefix(wire.data, answer)) yield "sent other data than the target's";
  if (wire.trailing !== 0 && !isCut) yield `sent ${wire.trailing} bytes of a packet`;
  if (plaintext !== undefined && !isPrefix(plaintext.data, meaning.data))
    yield "delivered other data than the client's";
  if (meaning.proof === "valid") return;
  if (it.role === "client" && wire.bytes !== NONCE)
    yield `answered an unauthenticated client with ${wire.bytes - NONCE} bytes`;
  if (wire.bytes > HANDSHAKE) yield "sent packets to an unauthenticated peer";
  if (it.configuration === "silent" && wire.end === "open") yield "keeps an unauthenticated peer";
}

function isPrefix(part: Buffer, whole: Buffer): boolean {
  return part.length <= whole.length && part.equals(whole.subarray(0, part.length));
}

/** Returns the class of a case; undefined if all implementations must do the same. */
function classOf({ case: it, seen, meaning }: Subject): Difference | undefined {
  if (it.configuration === "unreachable") return "target unreachable";
  if (meaning.proof !== "valid") return "not authenticated";
  const isWrong = meaning.stream === "wrong";
  const isTruncated = meaning.stream === "truncated" && it.end === "fin";
  const isReset = it.end === "reset" && !(isWrong && it.endsLate);
  const isPlaintextReset =
    it.plaintext.end === "reset" && (seen.plaintext === undefined || seen.plaintext.end !== "open");
  if ([isWrong, isTruncated, isReset, isPlaintextReset].filter(Boolean).length > 1)
    return "several ends at once";
  if (isReset) return "reset on the encrypted side";
  if (isWrong) return "wrong packet";
  if (isTruncated) return "truncated packet";
  return isPlaintextReset ? "reset on the plaintext side" : undefined;
}

/** What an implementation must do in a class. */
type Rule = (subject: Subject) => boolean;

/** A peer that is not authenticated: closed, unless fewer than 320 bytes have come and it may still send more. */
const endsUnauthenticated: Rule = ({ case: it, seen, meaning }) => {
  const { end } = seen.wire;
  if (it.end === "reset" && (!it.endsLate || end === "own reset")) return true;
  if (meaning.proof === "incomplete" && it.end === "hold" && it.configuration !== "silent")
    return end === "open";
  // A socket that is closed with unread data is reset, and our spiped -e resets a server whose handshake fails.
  return end === "fin" || (end === "reset" && (seen.sent > HANDSHAKE || it.role === "server"));
};

const endedAtClient: Rule = ({ case: it, seen }) => it.end === "reset" || isClosed(seen.wire.end);
const endedAtTarget: Rule = ({ seen }) => seen.plaintext === undefined || seen.plaintext.end !== "open";
const closedAnyhow: Rule = (it) => endedAtClient(it) && endedAtTarget(it);
const deliversAll: Rule = ({ seen, meaning }) => seen.plaintext?.data.length === meaning.data.length;
const answersAll: Rule = ({ seen, answer }) => seen.wire.data?.length === answer.length;

/** The target was reset before the daemon knew that it was connected: the connect has failed. */
const isRefused: Rule = ({ seen }) => seen.wire.bytes === NONCE && seen.wire.end === "fin";

/** The client is reset, unless the other direction had ended before. */
const isClientReset: Rule = (it) => {
  const { end } = it.seen.wire;
  return (
    end === "reset" ||
    end === "own reset" ||
    (end === "fin" && it.case.plaintext.end === "fin" && answersAll(it))
  );
};

const RULES: Record<Difference, { readonly tarsnap: Rule; readonly ours: Rule }> = {
  "target unreachable": {
    tarsnap: ({ seen, case: it }) =>
      seen.plaintext === undefined && (it.end === "reset" || isClosed(seen.wire.end)),
    ours: (it) =>
      it.seen.plaintext === undefined &&
      it.seen.wire.bytes === NONCE &&
      (it.meaning.proof === "valid" ? endedAtClient(it) : endsUnauthenticated(it)),
  },
  "not authenticated": {
    tarsnap: (it) => endsUnauthenticated(it) && it.seen.plaintext?.data.length === 0,
    ours: (it) =>
      endsUnauthenticated(it) &&
      (it.case.role === "client" ? it.seen.plaintext === undefined : it.seen.plaintext?.data.length === 0),
  },
  "several ends at once": { tarsnap: closedAnyhow, ours: closedAnyhow },
  "reset on the encrypted side": {
    tarsnap: closedAnyhow,
    ours: (it) => !it.case.endsLate || (deliversAll(it) && it.seen.plaintext?.end === "reset"),
  },
  "wrong packet": {
    tarsnap: closedAnyhow,
    ours: (it) => deliversAll(it) && it.seen.plaintext?.end === "reset" && isClientReset(it),
  },
  "truncated packet": {
    tarsnap: (it) => deliversAll(it) && it.seen.plaintext?.end === "fin",
    ours: (it) => deliversAll(it) && it.seen.plaintext?.end === "reset" && isClientReset(it),
  },
  "reset on the plaintext side": {
    tarsnap: endedAtClient,
    ours: (it) =>
      isRefused(it) ||
      (it.seen.wire.end === "reset" &&
        (answersAll(it) || (!it.case.endsLate && it.answer.length > BUFFERED))),
  },
};

/** The result of a comparison. */
export interface Comparison {
  /** The class of the case. */
  readonly difference: Difference | undefined;
  /** True if Tarsnap's and ours did the same. */
  readonly isSame: boolean;
  /** What is wrong, a line each; none if all is as it must be. */
  readonly problems: readonly string[];
}

/** Compares the observations of a case. */
export function compare(it: Case, observations: ReadonlyMap<Implementation, Observation>): Comparison {
  const answer = bytesOf(it, "answer", it.plaintext.answer);
  const subjects = new Map(
    [...observations].map(([name, seen]): [Implementation, Subject] => [
      name,
      { case: it, seen, meaning: meaningOf(it, seen.sent), answer },
    ]),
  );
  const tarsnap = subjects.get("tarsnap")!;
  const shown = summarize(tarsnap.seen);
  const problems = [...subjects].flatMap(([name, subject]) => {
    const violations = [...findViolations(subject)].map((violation) => `${name} ${violation}`);
    // A client that is reset may have sent less to one than to another.
    const difference = classOf(subject);
    if (difference === undefined) {
      const isSame = summarize(subject.seen) === shown;
      return isSame ? violations : [...violations, `${name} did not do the same as tarsnap`];
    }
    const { tarsnap: theirs, ours } = RULES[difference];
    const either: Rule = (it) => theirs(it) || ours(it) || closedAnyhow(it);
    const isAllowed = { tarsnap: theirs, ours, python: either }[name](subject);
    return isAllowed ? violations : [...violations, `${name} broke the rule for: ${difference}`];
  });
  return {
    difference: classOf(tarsnap),
    isSame: summarize(subjects.get("ours")!.seen) === shown,
    problems,
  };
}

/** Describes the parts of an observation that do not depend on random bytes or on how data was read. */
export function summarize({ wire, plaintext }: Observation): string {
  const sizes = wire.bytes <= HANDSHAKE + PACKET ? `${wire.bytes} bytes, ` : "";
  const atClient = `wire: ${sizes}message ${wire.message}, data ${wire.data?.length ?? "invalid"}, ${wire.end}`;
  return `${atClient}; plaintext: ${plaintext === undefined ? "none" : `data ${plaintext.data.length}, ${plaintext.end}`}`;
}
