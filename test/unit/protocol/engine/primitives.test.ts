/** The cryptographic primitives, as the engines and the key schedule use them, against their standards' vectors. */
import { createCipheriv, createHmac } from "node:crypto";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { describe, expect, it } from "vitest";
import { PRIME } from "../../../../src/protocol/diffie-hellman.ts";
import { INPUT_OFFSET } from "../../../../src/protocol/engine/engine.ts";
import { createNativeEngine } from "../../../../src/protocol/engine/native.ts";
import { portableEngine } from "../../../../src/protocol/engine/portable.ts";
import { PacketNumber } from "../../../../src/protocol/packet-number.ts";

const bytes = (text: string) => Buffer.from(text, "hex");

describe("HMAC-SHA256, RFC 4231", () => {
  it.each([
    [
      "1",
      "0b".repeat(20),
      Buffer.from("Hi There").toString("hex"),
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ],
    [
      "2",
      Buffer.from("Jefe").toString("hex"),
      Buffer.from("what do ya want for nothing?").toString("hex"),
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ],
    [
      "3",
      "aa".repeat(20),
      "dd".repeat(50),
      "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ],
    [
      "4",
      "0102030405060708090a0b0c0d0e0f10111213141516171819",
      "cd".repeat(50),
      "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ],
    [
      "6",
      "aa".repeat(131),
      Buffer.from("Test Using Larger Than Block-Size Key - Hash Key First").toString("hex"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ],
    [
      "7",
      "aa".repeat(131),
      Buffer.from(
        "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.",
      ).toString("hex"),
      "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ],
  ])("case %s", (_number, key, data, tag) => {
    expect(createHmac("sha256", bytes(key)).update(bytes(data)).digest("hex")).toBe(tag);
    expect(Buffer.from(hmac(sha256, bytes(key), bytes(data))).toString("hex")).toBe(tag);
  });
});

describe("AES-256, SP 800-38A", () => {
  const key = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
  const plaintext =
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";

  it("matches vector F.5.5, counter mode", () => {
    const cipher = createCipheriv("aes-256-ctr", key, bytes("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
    expect(cipher.update(bytes(plaintext), undefined, "hex")).toBe(
      "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c52b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
    );
  });

  it("in counter mode from block 0 is how both engines encrypt a packet", () => {
    const data = Buffer.alloc(1024, bytes(plaintext));
    const block = Buffer.alloc(16);
    block.writeBigUInt64BE(7n);
    const padded = Buffer.concat([data, Buffer.from([0, 0, 4, 0])]);
    const expected = createCipheriv("aes-256-ctr", key, block).update(padded);
    for (const engine of [createNativeEngine(), portableEngine]) {
      const cipher = engine.createCipher({ encrypt: key, mac: Buffer.alloc(32) });
      const { readBuffer, outputs } = engine.workspace;
      readBuffer.set(data);
      cipher.seal(INPUT_OFFSET, 1024, new PacketNumber(7n), outputs.reserved, 0);
      expect(outputs.reserved.first(1028).equals(expected)).toBe(true);
      cipher.destroy();
    }
  });
});

it("the group is number 14 of RFC 3526: 2^2048 - 2^1984 - 1 + 2^64 * (floor(2^1918 pi) + 124476)", () => {
  // pi from Machin's formula, with more digits than needed.
  const scale = 2n ** 2000n;
  const arctan = (inverse: bigint) => {
    let sum = 0n;
    let term = scale / inverse;
    for (let n = 1n, sign = 1n; term > 0n; n += 2n, sign = -sign, term /= inverse * inverse)
      sum += (sign * term) / n;
    return sum;
  };
  const pi = 4n * (4n * arctan(5n) - arctan(239n));
  const floor = (pi * 2n ** 1918n) / scale;
  const prime = 2n ** 2048n - 2n ** 1984n - 1n + 2n ** 64n * (floor + 124_476n);
  expect(BigInt(`0x${Buffer.from(PRIME).toString("hex")}`)).toBe(prime);
});
