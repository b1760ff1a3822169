/** The keys of an engine's ciphers. */
import { randomBytes } from "node:crypto";
import { expect, it } from "vitest";
import { KeyStore } from "../../../../src/protocol/engine/key-store.ts";

/** Returns the keys of an entry. */
function read(store: KeyStore, entry: number): Buffer {
  const keys = Buffer.alloc(96);
  store.copy(entry, keys);
  return keys;
}

it("keys are kept apart, copied, and overwritten when they are removed", () => {
  const store = new KeyStore();
  const all = Array.from({ length: 300 }, () => randomBytes(96));
  const entries = all.map((keys) => store.add(keys));
  expect(new Set(entries).size).toBe(300);
  const original = Buffer.from(all[7]!);
  all[7]!.fill(0);
  expect(read(store, entries[7]!)).toEqual(original);
  for (const entry of entries.slice(100, 200)) {
    store.remove(entry);
    expect(read(store, entry)).toEqual(Buffer.alloc(96));
  }
  for (const [i, entry] of entries.entries()) {
    if (i !== 7 && (i < 100 || i >= 200)) expect(read(store, entry)).toEqual(all[i]);
  }
});

it("a removed entry is used again", () => {
  const store = new KeyStore();
  const [first] = [store.add(randomBytes(96)), store.add(randomBytes(96))];
  store.remove(first);
  const keys = randomBytes(96);
  expect(store.add(keys)).toBe(first);
  expect(read(store, first)).toEqual(keys);
});
