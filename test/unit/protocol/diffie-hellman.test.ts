import { DiffieHellman, randomBytes } from "node:crypto";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import {
  Exponent,
  groupObject,
  keyObjects,
  type ModExpBackend,
  PRIME,
  VALUE_SIZE,
} from "../../../src/protocol/diffie-hellman.ts";
import { hex, modes, vectors } from "../../vectors/vectors.ts";

const number = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
const bytes = (n: bigint) => hex(n.toString(16).padStart(2 * VALUE_SIZE, "0"));
const p = number(PRIME);

/** Square and multiply, as a simple reference. */
function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let e = exponent, b = base; e > 0n; e >>= 1n, b = (b * b) % p) if (e & 1n) result = (result * b) % p;
  return result;
}
const exponentOf = (x: Uint8Array) => 2n ** 258n + number(x);

describe("Diffie-Hellman over group 14", () => {
  it("uses the prime of RFC 3526", () => {
    expect(Buffer.from(PRIME).toString("hex")).toBe(vectors.group14_prime);
  });

  it("computes the values of the vectors", () => {
    for (const [, { client, server, y_sc }] of modes) {
      if (client.private_x === null || server.private_x === null) continue;
      const own = new Exponent(hex(client.private_x));
      expect(own.publicValue()).toEqual(hex(client.y));
      expect(own.sharedValue(hex(server.y))).toEqual(hex(y_sc));
      expect(new Exponent(hex(server.private_x)).sharedValue(hex(client.y))).toEqual(hex(y_sc));
    }
  });

  it("agrees with BigInt arithmetic, also for values that OpenSSL rejects", () => {
    for (const low of [0, 1]) {
      const x = randomBytes(32);
      x[31] = (x[31]! & 0xfe) | low;
      const exponent = new Exponent(x);
      for (const peer of [
        0n,
        1n,
        2n,
        255n,
        p - 2n,
        p - 1n,
        number(randomBytes(256)) % p,
        number(randomBytes(128)),
      ]) {
        expect(exponent.sharedValue(bytes(peer))).toEqual(bytes(power(peer, exponentOf(x))));
      }
      expect(exponent.publicValue()).toEqual(bytes(power(2n, exponentOf(x))));
    }
  });

  it("computes with the negatives of quadratic non-residues where OpenSSL rejects these", () => {
    // Rejects quadratic non-residues on every Node version, as OpenSSL does on Node 22.
    const lenient = groupObject();
    let rejected = 0;
    const strict: ModExpBackend = (exponent) => {
      const powers = lenient(exponent);
      return {
        ...powers,
        of(base) {
          if (power(number(base), (p - 1n) / 2n) !== 1n) {
            rejected += 1;
            throw new Error("invalid public key");
          }
          return powers.of(base);
        },
      };
    };
    for (const low of [0, 1]) {
      const x = randomBytes(32);
      x[31] = (x[31]! & 0xfe) | low;
      const residue = number(randomBytes(256)) ** 2n % p;
      for (const peer of [residue, p - residue]) {
        expect(new Exponent(x, strict).sharedValue(bytes(peer))).toEqual(bytes(power(peer, exponentOf(x))));
      }
    }
    expect(rejected).toBe(2);
  });

  it("gives the same results with both backends", () => {
    const [group, keys] = [groupObject(), keyObjects()];
    for (let round = 0; round < 20; round += 1) {
      const x = randomBytes(32);
      const [one, other] = [new Exponent(x, group), new Exponent(x, keys)];
      expect(one.publicValue()).toEqual(other.publicValue());
      const peer = new Exponent(randomBytes(32)).publicValue();
      expect(one.sharedValue(peer)).toEqual(other.sharedValue(peer));
    }
  });

  describe("selects the group object only if it works", () => {
    type SetPrivateKey = (this: DiffieHellman, exponent: Uint8Array) => void;
    const prototype = DiffieHellman.prototype as { setPrivateKey: SetPrivateKey | undefined };
    const setPrivateKey = prototype.setPrivateKey!;

    /** Checks the default backend against the vectors, with another `setPrivateKey()`. Returns how often it is called. */
    const callsWith = async (replacement: SetPrivateKey | undefined) => {
      let calls = 0;
      prototype.setPrivateKey =
        replacement &&
        function (exponent) {
          calls += 1;
          replacement.call(this, exponent);
        };
      onTestFinished(() => {
        prototype.setPrivateKey = setPrivateKey;
      });
      vi.resetModules();
      const fresh = await import("../../../src/protocol/diffie-hellman.ts");
      // The probe comes with the first exponent.
      new fresh.Exponent(randomBytes(32)).destroy();
      calls = 0;
      for (const [, { client, server, y_sc }] of modes) {
        if (client.private_x === null || server.private_x === null) continue;
        const own = new fresh.Exponent(hex(client.private_x));
        expect(own.publicValue()).toEqual(hex(client.y));
        expect(own.sharedValue(hex(server.y))).toEqual(hex(y_sc));
      }
      return calls;
    };

    it("as it does, and fast, except on Node 22 and 23", async () => {
      expect((await callsWith(setPrivateKey)) > 0).toBe(!/^v2[23]\./.test(process.version));
    });

    const rejecting = () => {
      throw new TypeError("Illegal invocation");
    };
    const setsAnother: SetPrivateKey = function (exponent) {
      setPrivateKey.call(this, Uint8Array.of(exponent.at(-1)! + 1));
    };
    it.each([
      ["rejects a group", rejecting],
      ["has no effect", () => {}],
      ["sets another exponent", setsAnother],
      ["is missing", undefined],
    ])("and key objects if setPrivateKey() %s", async (_failure, replacement) => {
      expect(await callsWith(replacement)).toBe(0);
    });
  });

  it("pads short results", () => {
    let short = false;
    for (let round = 0; round < 3000 && !short; round += 1) {
      const y = new Exponent(randomBytes(32)).publicValue();
      expect(y).toHaveLength(VALUE_SIZE);
      short = y[0] === 0;
    }
    expect(short).toBe(true);
  });
});
