import { createHash, createHmac } from "node:crypto";
import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import { fingerprint } from "../../src/protocol/fingerprint.ts";
import { Secret } from "../../src/protocol/secret.ts";

const secretOf = (text: string) => Secret.fromKeyFile(Buffer.from(text));

describe("a secret", () => {
  it("is the same as another one made of the same file, and of no other", () => {
    expect(Secret.equal(secretOf("a key"), secretOf("a key"))).toBe(true);
    expect(Secret.equal(secretOf("a key"), secretOf("a key\n"))).toBe(false);
  });

  it("overwrites the copy that it was sent, and takes no part of it", () => {
    const sent = Uint8Array.from(Secret.reveal(secretOf("a key")));
    const secret = Secret.fromKey(sent);
    expect(sent).toEqual(new Uint8Array(32));
    expect(Secret.equal(secret, secretOf("a key"))).toBe(true);
  });

  it("is overwritten when it is destroyed, and of no use then", () => {
    const secret = secretOf("a key");
    const key = Secret.reveal(secret);
    secret.destroy();
    expect(key).toEqual(new Uint8Array(32));
    expect(() => Secret.reveal(secret)).toThrow("destroyed");
  });

  it("is told from what only looks like one", () => {
    expect(Secret.is(secretOf("a key"))).toBe(true);
    for (const value of [undefined, null, 7, "a key", {}, new Uint8Array(32)])
      expect(Secret.is(value)).toBe(false);
  });

  it("has a fingerprint of 64 bits: HMAC-SHA256 of a label, under K", () => {
    const print = createHmac("sha256", createHash("sha256").update("a key").digest())
      .update("spiped key fingerprint")
      .digest("hex");
    expect(fingerprint(secretOf("a key"))).toBe(print.slice(0, 16).match(/..../g)!.join("-"));
  });

  it("shows nothing of itself", () => {
    const secret = secretOf("a key");
    expect(inspect(secret, { depth: 9, showHidden: true })).toBe("Secret {}");
    expect(JSON.stringify({ secret })).toBe('{"secret":{}}');
    expect(Object.keys(secret)).toEqual([]);
  });
});
