/** The key schedule, which OpenSSL computes, against `@noble`'s implementation. */
import { pbkdf2 } from "@noble/hashes/pbkdf2.js";
import { sha256 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { expect, it } from "vitest";
import { deriveSessionKeys } from "../../../src/protocol/key-schedule.ts";
import { Secret } from "../../../src/protocol/secret.ts";

const bytes = (size: number) => fc.uint8Array({ minLength: size, maxLength: size });
const toHex = (...parts: readonly Uint8Array[]) => Buffer.concat(parts).toString("hex");

it("the key and the session keys equal those derived with @noble", () => {
  const nonces = fc.record({ client: bytes(32), server: bytes(32) });
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      nonces,
      bytes(256),
      (keyFile, { client, server }, shared) => {
        const secret = Secret.fromKeyFile(keyFile);
        const key = sha256(keyFile);
        expect(toHex(Secret.reveal(secret))).toBe(toHex(key));

        const salt = Buffer.concat([client, server, shared]);
        const expected = toHex(pbkdf2(sha256, key, salt, { c: 1, dkLen: 128 }));
        const derive = (side: "client" | "server") =>
          deriveSessionKeys(secret, { client, server }, shared.slice(), side);
        const [ours, theirs] = [derive("client"), derive("server")];
        expect(toHex(ours.seal.encrypt, ours.seal.mac, ours.open.encrypt, ours.open.mac)).toBe(expected);
        expect(toHex(theirs.open.encrypt, theirs.open.mac, theirs.seal.encrypt, theirs.seal.mac)).toBe(
          expected,
        );
      },
    ),
  );
});

it("the Diffie-Hellman result is overwritten", () => {
  const shared = new Uint8Array(256).fill(7);
  const nonces = { client: new Uint8Array(32), server: new Uint8Array(32) };
  deriveSessionKeys(Secret.fromKeyFile(Buffer.from("a key")), nonces, shared, "client");
  expect(shared).toEqual(new Uint8Array(256));
});
