/** Replays the fuzzer's corpus. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { DirectionKeys } from "../../src/protocol/engine/engine.ts";
import { createNativeEngine } from "../../src/protocol/engine/native.ts";
import { portableEngine } from "../../src/protocol/engine/portable.ts";
import type { FuzzTarget } from "../fuzz/target.ts";
import { makeTarget as makeProtocolTarget } from "../fuzz/targets/protocol.ts";

const DIRECTORY = "test/fuzz";
const NAMES = readdirSync(join(DIRECTORY, "targets")).map((file) => file.replace(/\.ts$/, ""));

it.each(NAMES)("replaying the corpus of %s finds no failure", { timeout: 120_000 }, async (name) => {
  const module: { makeTarget(): FuzzTarget | Promise<FuzzTarget> } = await import(
    `../fuzz/targets/${name}.ts`
  );
  const target = await module.makeTarget();
  const corpus = join(DIRECTORY, "corpus", name);
  expect(existsSync(corpus)).toBe(true);
  const kept = readdirSync(corpus).map((file) => readFileSync(join(corpus, file)));
  expect(kept.length).toBeGreaterThan(0);
  for (const input of [...target.seeds, ...kept]) await target.run(input);
  await target.close?.();
});

it("the target detects a wrong engine", () => {
  const broken = {
    ...portableEngine,
    createCipher: (keys: DirectionKeys) =>
      portableEngine.createCipher({ encrypt: keys.encrypt, mac: new Uint8Array(32) }),
  };
  const wrong = makeProtocolTarget([createNativeEngine(), broken]);
  expect(() => {
    for (const seed of wrong.seeds) void wrong.run(seed);
  }).toThrow("results differ");
});
