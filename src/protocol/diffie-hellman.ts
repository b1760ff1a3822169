/**
 * Diffie-Hellman over RFC 3526 group 14, the way the protocol uses it (sections 1.5 to 1.7): the exponent is
 * 2^258 + x for 32 random bytes x, and every value is exactly 256 bytes, big-endian, padded on the left.
 *
 * The exponentiations are OpenSSL's, through `node:crypto`, 0.25 ms each, in one of two ways that were measured: an
 * object of the group itself; or key objects, on Node 22, whose group object checks each peer's value for 1.4 ms.
 * Elsewhere key objects are slower: 2.6 ms for both exponentiations on Node 20; from Node 24 on not by themselves, but
 * Node captures stack traces while it tells the kinds of its arguments, 9 % of a busy daemon's time.
 */
import {
  createPrivateKey,
  createPublicKey,
  DiffieHellman,
  diffieHellman,
  getDiffieHellman,
  type KeyObject,
} from "node:crypto";

/** Bytes of the prime, and of every value on the wire. */
export const VALUE_SIZE = 256;
/** Bytes of the random part x of an exponent. */
export const EXPONENT_RANDOM_SIZE = 32;

/** The prime of group 14, 256 bytes. */
export const PRIME: Uint8Array = Uint8Array.from(getDiffieHellman("modp14").getPrime());
const GENERATOR = 2;

/** The value 1, which a side that does not take part in Diffie-Hellman sends (section 1.6). */
export const ONE: Uint8Array = leftPad(Uint8Array.of(1));
const ZERO = new Uint8Array(VALUE_SIZE);
const PRIME_MINUS_ONE = PRIME.slice();
PRIME_MINUS_ONE[VALUE_SIZE - 1]! -= 1;

/** True if the two values, which are public, are equal. */
export function sameValue(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** True if a received value, which is public, is below the prime. */
export function inRange(y: Uint8Array): boolean {
  return Buffer.compare(y, PRIME) < 0;
}

/** A side's own secret, the exponent 2^258 + x. */
export class Exponent {
  #powers: Powers | undefined;
  readonly #isOdd: boolean;

  /**
   * @param x 32 random bytes; they can be overwritten afterwards.
   * @param way to exponentiate; the quickest here if none is given.
   */
  constructor(x: Uint8Array, way: Way = quickestWay()) {
    const exponent = new Uint8Array(1 + EXPONENT_RANDOM_SIZE);
    exponent[0] = 1 << (258 - 256);
    exponent.set(x, 1);
    this.#isOdd = (exponent.at(-1)! & 1) === 1;
    this.#powers = way(exponent);
  }

  /**
   * 2^(2^258 + x) mod p.
   *
   * @returns 256 bytes.
   */
  publicValue(): Uint8Array {
    return leftPad(this.#use.ofGenerator());
  }

  /**
   * peer^(2^258 + x) mod p.
   *
   * OpenSSL refuses the values 0, 1 and p-1, which the protocol accepts: every peer with a weak handshake sends 1.
   * Their powers are known without computing.
   *
   * @param peer the peer's value, 256 bytes, below p.
   * @returns 256 bytes; secret unless the peer chose one of the three values.
   */
  sharedValue(peer: Uint8Array): Uint8Array {
    const powers = this.#use;
    if (sameValue(peer, ZERO)) return ZERO.slice();
    if (sameValue(peer, ONE)) return ONE.slice();
    if (sameValue(peer, PRIME_MINUS_ONE)) return this.#isOdd ? PRIME_MINUS_ONE.slice() : ONE.slice();
    try {
      return padSecret(powers.of(peer));
    } catch {
      // On Node 22 OpenSSL refuses a value that is no power of 2, too. Then p - peer is one, as p - 1 is not; and
      // (-peer)^e is peer^e, but for its sign if e is odd.
      const power = padSecret(powers.of(negative(peer)));
      if (!this.#isOdd) return power;
      const result = negative(power);
      power.fill(0);
      return result;
    }
  }

  /** Forgets the exponent. It can't be used any more. */
  destroy(): void {
    this.#powers?.destroy();
    this.#powers = undefined;
  }

  get #use(): Powers {
    if (this.#powers === undefined) throw new Error("the exponent has been destroyed");
    return this.#powers;
  }
}

/** p - value, for a value of 256 bytes between 0 and p. */
function negative(value: Uint8Array): Uint8Array {
  const result = new Uint8Array(VALUE_SIZE);
  let borrow = 0;
  for (let i = VALUE_SIZE - 1; i >= 0; i -= 1) {
    const difference = PRIME[i]! - value[i]! - borrow;
    borrow = difference < 0 ? 1 : 0;
    result[i] = difference & 0xff;
  }
  return result;
}

/** The powers with one exponent. Results have any length up to 256 bytes. */
interface Powers {
  /** Of the generator, 2. */
  ofGenerator(): Uint8Array;
  /** @throws if OpenSSL refuses the base. */
  of(base: Uint8Array): Uint8Array;
  destroy(): void;
}

/** A way to exponentiate with an exponent of 33 bytes, which is the way's to keep and to overwrite. */
export type Way = (exponent: Uint8Array) => Powers;

let chosen: Way | undefined;

function quickestWay(): Way {
  chosen ??= /^2[23]\./.test(process.versions.node) ? keyObjects() : groupObject();
  return chosen;
}

/** Pads a secret and overwrites what was not padded. */
function padSecret(value: Uint8Array): Uint8Array {
  const padded = leftPad(value);
  value.fill(0);
  return padded;
}

function leftPad(value: Uint8Array): Uint8Array {
  const padded = new Uint8Array(VALUE_SIZE);
  padded.set(value, VALUE_SIZE - value.length);
  return padded;
}

/**
 * One `DiffieHellmanGroup` object serves all connections: an exponent stays in it only during a call. That class has no
 * method of its own to set an exponent, but the same inside as `DiffieHellman`, whose method does; objects of
 * `DiffieHellman` check their prime when they are made, for 170 ms from Node 24 on.
 */
export function groupObject(): Way {
  const group = getDiffieHellman("modp14");
  const setPrivateKey: (exponent: Uint8Array) => void = DiffieHellman.prototype.setPrivateKey;
  const harmless = Uint8Array.of(1);
  return (exponent) => {
    const using = (compute: () => Buffer): Uint8Array => {
      setPrivateKey.call(group, exponent);
      try {
        return compute();
      } finally {
        setPrivateKey.call(group, harmless);
      }
    };
    return {
      ofGenerator: () => using(() => group.generateKeys()),
      of: (base) => using(() => group.computeSecret(base)),
      destroy: () => exponent.fill(0),
    };
  };
}

/**
 * Key objects, made from and exported to DER: PKCS#8 for an exponent, SubjectPublicKeyInfo for a value. OpenSSL
 * overwrites an exponent when its object is collected.
 */
export function keyObjects(): Way {
  const integer = (value: Uint8Array) =>
    der(0x02, (value[0]! & 0x80) === 0 ? [value] : [Uint8Array.of(0), value]);
  const dhKeyAgreement = Uint8Array.of(0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 3, 1);
  const parameters = der(0x30, [integer(PRIME), integer(Uint8Array.of(GENERATOR))]);
  const algorithm = der(0x30, [dhKeyAgreement, parameters]);
  const version = integer(Uint8Array.of(0));

  const privateKeyOf = (exponent: Uint8Array): KeyObject => {
    const encoded = integer(exponent);
    const octets = der(0x04, [encoded]);
    const key = der(0x30, [version, algorithm, octets]);
    try {
      return createPrivateKey({ key, format: "der", type: "pkcs8" });
    } finally {
      for (const secret of [exponent, encoded, octets, key]) secret.fill(0);
    }
  };

  return (exponent) => {
    const privateKey = privateKeyOf(exponent);
    return {
      ofGenerator() {
        const spki = createPublicKey(privateKey).export({ format: "der", type: "spki" });
        const [, bits] = elements(elements(spki)[0]!);
        return elements(bits!.subarray(1))[0]!;
      },
      of(base) {
        const significant = base.subarray(base.findIndex((byte) => byte !== 0));
        const spki = der(0x30, [algorithm, der(0x03, [Uint8Array.of(0), integer(significant)])]);
        const publicKey = createPublicKey({ key: spki, format: "der", type: "spki" });
        return diffieHellman({ privateKey, publicKey });
      },
      destroy: () => {},
    };
  };
}

/** Encodes one DER element. */
function der(tag: number, parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const header =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  const encoded = Buffer.concat([Uint8Array.of(tag, ...header), content]);
  content.fill(0);
  return encoded;
}

/** The contents of the DER elements that follow one another in `bytes`; an INTEGER's leading zeros are left out. */
function elements(bytes: Uint8Array): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at]!;
    let length = bytes[at + 1]!;
    at += 2;
    if (length >= 0x80) {
      let octets = length & 0x7f;
      for (length = 0; octets > 0; octets -= 1) length = length * 256 + bytes[at++]!;
    }
    const skip = tag === 0x02 && bytes[at] === 0 ? 1 : 0;
    found.push(bytes.subarray(at + skip, at + length));
    at += length;
  }
  return found;
}
