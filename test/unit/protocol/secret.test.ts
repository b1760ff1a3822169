import { createHash, createHmac } from "node:crypto";
import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import { fingerprint } from "../../../src/protocol/fingerprint.ts";
import { Secret } from "../../../src/protocol/secret.ts";

const secretOf = (text: string) => Secret.fromKeyFile(Buffer.from(text));

describe("a secret", () => {
  it("equals another secret from the same key file, but not one from another file", () => {
    expect(Secret.equal(secretOf("a key"), secretOf("a key"))).toBe(true);
    expect(Secret.equal(secretOf("a key"), secretOf("a key\n"))).toBe(false);
  });

  it.each([
    ["an array", (key: Uint8Array) => Uint8Array.from(key)],
    ["a Buffer", (key: Uint8Array) => Buffer.from(key)],
  ])("copies the key that it is created from, %s, and overwrites the original", (_name, copy) => {
    const sent = copy(Secret.reveal(secretOf("a key")));
    const secret = Secret.fromKey(sent);
    expect(sent.every((byte) => byte === 0)).toBe(true);
    expect(Secret.equal(secret, secretOf("a key"))).toBe(true);
    sent.fill(1);
    expect(Secret.equal(secret, secretOf("a key"))).toBe(true);
  });

  it("is overwritten and unusable after destroy()", () => {
    const secret = secretOf("a key");
    const key = Secret.reveal(secret);
    secret.destroy();
    expect(key).toEqual(new Uint8Array(32));
    expect(() => Secret.reveal(secret)).toThrow("destroyed");
  });

  it("is distinguished from other values by Secret.is()", () => {
    expect(Secret.is(secretOf("a key"))).toBe(true);
    for (const value of [undefined, null, 7, "a key", {}, new Uint8Array(32)])
      expect(Secret.is(value)).toBe(false);
  });

  it("has a fingerprint of 64 bits: HMAC-SHA256 of a label with key K", () => {
    const print = createHmac("sha256", createHash("sha256").update("a key").digest())
      .update("spiped key fingerprint")
      .digest("hex");
    expect(fingerprint(secretOf("a key"))).toBe(print.slice(0, 16).match(/..../g)!.join("-"));
  });

  it("has no visible contents when inspected or serialized", () => {
    const secret = secretOf("a key");
    expect(inspect(secret, { depth: 9, showHidden: true })).toBe("Secret {}");
    expect(JSON.stringify({ secret })).toBe('{"secret":{}}');
    expect(Object.keys(secret)).toEqual([]);
  });
});
