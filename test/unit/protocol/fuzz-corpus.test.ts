/** Replays the fuzzer's corpus. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import * as protocol from "../../fuzz/protocol.ts";
import { makeTarget, seeds } from "../../fuzz/target.mjs";

const DIRECTORY = "test/fuzz/corpus";
const target: (input: Uint8Array) => void = makeTarget(protocol);

it("replaying the corpus finds no failure", () => {
  const kept = readdirSync(DIRECTORY).map((name) => readFileSync(join(DIRECTORY, name)));
  expect(kept.length).toBeGreaterThan(0);
  for (const input of [...seeds(protocol), ...kept]) target(input);
});

it("the target detects a wrong engine", () => {
  const [native, portable] = protocol.engines;
  const broken = {
    ...portable!,
    createCipher: (keys: Parameters<NonNullable<typeof native>["createCipher"]>[0]) =>
      portable!.createCipher({ encrypt: keys.encrypt, mac: new Uint8Array(32) }),
  };
  const wrong = makeTarget({ ...protocol, engines: [native, broken] });
  expect(() => {
    for (const seed of seeds(protocol)) wrong(seed);
  }).toThrow("results differ");
});
