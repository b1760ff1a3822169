/**
 * A short differential test; run `npm run differential -- --cases 10000` for a long one. DIFFERENTIAL_SEED repeats a
 * run.
 */
import { randomInt } from "node:crypto";
import { expect, it } from "vitest";
import { makeCase } from "../../differential/cases.ts";
import { compare } from "../../differential/compare.ts";
import type { Observation } from "../../differential/connection.ts";
import type { Implementation } from "../../differential/daemons.ts";
import { runCases } from "../../differential/differential.ts";
import { meaningOf } from "../../differential/stream.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

const SEED = Number(process.env.DIFFERENTIAL_SEED ?? randomInt(2 ** 31));

/** Time after which no more cases are started, in ms. */
const MAX_TIME_MS = 30_000;

describeIfInstalled("spiped", "python3")("Tarsnap's spiped, ours and the independent one", () => {
  it("do the same, except for the differences that are documented", { timeout: 120_000 }, async () => {
    const end = Date.now() + MAX_TIME_MS;
    const numbers = Array.from({ length: 300 }, (_, i) => i);
    const { cases, classes, failures } = await runCases({
      seed: SEED,
      cases: numbers,
      isOver: () => Date.now() > end,
    });
    expect(failures.join("\n")).toBe("");
    expect(cases).toBeGreaterThan(0);
    console.log(`${cases} cases in ${classes.size} classes (seed ${SEED})`);
  });
});

/** Returns what all implementations do in a case in which everything is delivered both ways. */
function perfect(index: number) {
  const it = makeCase(1, index);
  const sent = 320 + 1060 * it.packets.length;
  const { data } = meaningOf(it, sent);
  const seen: Observation = {
    sent,
    wire: { bytes: 320, message: "valid", data: Buffer.alloc(0), trailing: 0, end: "fin" },
    plaintext: { data, end: "fin" },
  };
  return { it, seen };
}

/** The first case without any fault, whose connections all end with EOF. */
const HONEST = Array.from({ length: 1000 }, (_, i) => makeCase(1, i)).find(
  (it) =>
    it.role === "client" &&
    it.configuration === "default" &&
    it.value === "power" &&
    it.handshakeFault === undefined &&
    it.packetFault === undefined &&
    it.packets.length > 0 &&
    it.length === Number.POSITIVE_INFINITY &&
    it.excess === 0 &&
    it.end === "fin" &&
    it.plaintext.end === "fin",
)!;

it.each<[string, (seen: Observation) => Observation, string]>([
  [
    "loses data",
    (seen) => ({ ...seen, plaintext: { ...seen.plaintext!, data: seen.plaintext!.data.subarray(1) } }),
    "data",
  ],
  [
    "resets the target",
    (seen) => ({ ...seen, plaintext: { ...seen.plaintext!, end: "reset" } }),
    "not do the same",
  ],
  ["resets the client", (seen) => ({ ...seen, wire: { ...seen.wire, end: "reset" } }), "not do the same"],
  ["keeps the client", (seen) => ({ ...seen, wire: { ...seen.wire, end: "open" } }), "not do the same"],
  [
    "sends a wrong message",
    (seen) => ({ ...seen, wire: { ...seen.wire, message: "invalid" } }),
    "invalid handshake",
  ],
  [
    "sends a wrong packet",
    (seen) => ({ ...seen, wire: { ...seen.wire, data: undefined } }),
    "invalid packet",
  ],
  ["contacts no target", (seen) => ({ ...seen, plaintext: undefined }), "not do the same"],
])("the comparison finds an implementation that %s", (_what, change, problem) => {
  const { it: honest, seen } = perfect(HONEST.index);
  const compareWith = (ours: Observation) =>
    compare(
      honest,
      new Map<Implementation, Observation>([
        ["tarsnap", seen],
        ["ours", ours],
        ["python", seen],
      ]),
    );
  expect(compareWith(seen).problems).toEqual([]);
  expect(compareWith(change(seen)).problems.join("\n")).toContain(problem);
});
