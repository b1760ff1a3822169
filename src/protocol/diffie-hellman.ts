/**
 * Diffie-Hellman over RFC 3526 group 14, as used by the protocol (sections 1.5 to 1.7): the exponent is 2^258 + x for
 * 32 random bytes x, and every value is exactly 256 bytes, big-endian, padded on the left.
 *
 * OpenSSL does the exponentiations, through `node:crypto`, in 0.25 ms each. There are two backends: a group object, and
 * key objects. A group object is used in an undocumented way, and on Node 22 and 23 it spends 1.4 ms checking each peer's
 * value; so it is used only if a probe before the first handshake succeeds. Key objects always work, but are slower: on
 * Node 20 both exponentiations take 2.6 ms; from Node 24 on they are as fast, but Node captures stack traces while it
 * checks the argument types, which takes 9 % of a busy daemon's time.
 */
import {
  createPrivateKey,
  createPublicKey,
  DiffieHellman,
  diffieHellman,
  getDiffieHellman,
  type KeyObject,
  randomBytes,
} from "node:crypto";

/** Bytes of the prime and of every value on the wire. */
export const VALUE_SIZE = 256;
/** Bytes of the random part x of an exponent. */
const EXPONENT_RANDOM_SIZE = 32;

/** The prime of group 14, 256 bytes. */
export const PRIME: Uint8Array = Uint8Array.from(getDiffieHellman("modp14").getPrime());
const GENERATOR = 2;

/** The value 1, which a side with `-f` sends instead of a Diffie-Hellman value (section 1.6). */
export const ONE: Uint8Array = leftPad(Uint8Array.of(1));
const ZERO = new Uint8Array(VALUE_SIZE);
const PRIME_MINUS_ONE = PRIME.slice();
PRIME_MINUS_ONE[VALUE_SIZE - 1]! -= 1;

/** Returns true if two public values are equal. Not constant-time. */
export function sameValue(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Returns true if a received, public value is below the prime. Not constant-time. */
export function inRange(y: Uint8Array): boolean {
  return Buffer.compare(y, PRIME) < 0;
}

/** Provides exponents that were computed in advance. */
export interface ExponentSource {
  /** Returns an exponent that nothing else uses. The caller must destroy it. */
  take(): Exponent;
}

/** A side's secret exponent, 2^258 + x. */
export class Exponent {
  #modExp: ModExp | undefined;
  #publicValue: Uint8Array | undefined;
  readonly #isOdd: boolean;

  /**
   * @param x - 32 random bytes, copied.
   * @param backend - defaults to the fastest one that works in this version of Node.
   */
  constructor(x: Uint8Array, backend: ModExpBackend = fastestBackend()) {
    const exponent = new Uint8Array(1 + EXPONENT_RANDOM_SIZE);
    exponent[0] = 1 << (258 - 256);
    exponent.set(x, 1);
    this.#isOdd = (exponent.at(-1)! & 1) === 1;
    this.#modExp = backend(exponent);
  }

  /** Generates a random exponent. */
  static generate(random: (size: number) => Uint8Array = randomBytes): Exponent {
    const x = random(EXPONENT_RANDOM_SIZE);
    const exponent = new Exponent(x);
    x.fill(0);
    return exponent;
  }

  /**
   * Returns 2^(2^258 + x) mod p, which is computed by the first call.
   *
   * @returns 256 bytes, not to be modified.
   */
  publicValue(): Uint8Array {
    this.#publicValue ??= leftPad(this.#usable.ofGenerator());
    return this.#publicValue;
  }

  /**
   * Returns peer^(2^258 + x) mod p.
   *
   * OpenSSL rejects the values 0, 1 and p-1, which the protocol accepts: every peer with a weak handshake sends 1. The
   * powers of these values need no exponentiation.
   *
   * @param peer - the peer's value, 256 bytes, below p.
   * @returns 256 bytes; secret unless the peer chose one of the three values.
   */
  sharedValue(peer: Uint8Array): Uint8Array {
    const modExp = this.#usable;
    if (sameValue(peer, ZERO)) return ZERO.slice();
    if (sameValue(peer, ONE)) return ONE.slice();
    if (sameValue(peer, PRIME_MINUS_ONE)) return this.#isOdd ? PRIME_MINUS_ONE.slice() : ONE.slice();
    try {
      return padSecret(modExp.of(peer));
    } catch {
      // On Node 22 OpenSSL also rejects values that are not powers of 2. Then p - peer is one, because p - 1 is not,
      // and (-peer)^e equals peer^e, negated if e is odd.
      const power = padSecret(modExp.of(negative(peer)));
      if (!this.#isOdd) return power;
      const result = negative(power);
      power.fill(0);
      return result;
    }
  }

  /** Discards the exponent, which cannot be used afterwards. */
  destroy(): void {
    this.#modExp?.destroy();
    this.#modExp = undefined;
  }

  get #usable(): ModExp {
    if (this.#modExp === undefined) throw new Error("the exponent has been destroyed");
    return this.#modExp;
  }
}

/** Returns p - value, for a 256-byte value between 0 and p. */
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

/** Modular exponentiation with a fixed exponent. Results have up to 256 bytes. */
interface ModExp {
  /** Returns the power of the generator, 2. */
  ofGenerator(): Uint8Array;
  /**
   * Returns the power of `base`.
   *
   * @throws if OpenSSL rejects the base.
   */
  of(base: Uint8Array): Uint8Array;
  destroy(): void;
}

/** Prepares exponentiations with a 33-byte exponent. The backend owns the exponent and overwrites it. */
export type ModExpBackend = (exponent: Uint8Array) => ModExp;

let selected: ModExpBackend | undefined;

function fastestBackend(): ModExpBackend {
  selected ??= workingGroupObject() ?? keyObjects();
  return selected;
}

/**
 * Returns the group object's backend if it computes 2^3 = 8 and 11^3 = 1331; otherwise undefined.
 *
 * 11 is not a power of 2 mod p, so OpenSSL rejects it in those versions of Node in which it spends 1.4 ms on each value.
 */
function workingGroupObject(): ModExpBackend | undefined {
  try {
    const backend = groupObject();
    const power = backend(Uint8Array.of(3));
    const isRight = (result: Uint8Array, ...expected: number[]) =>
      sameValue(leftPad(result), leftPad(Uint8Array.from(expected)));
    const works = isRight(power.ofGenerator(), 8) && isRight(power.of(Uint8Array.of(11)), 0x05, 0x33);
    return works ? backend : undefined;
  } catch {
    return undefined;
  }
}

/** Returns a secret, padded on the left, and overwrites the original. */
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
 * Returns a backend that uses one `DiffieHellmanGroup` object for all connections; an exponent stays in it only during
 * a call. That class has no `setPrivateKey()`, but the method of `DiffieHellman` works on it, which is undocumented. A
 * `DiffieHellman` object would check the prime in its constructor, which takes 170 ms from Node 24 on.
 */
export function groupObject(): ModExpBackend {
  const group = getDiffieHellman("modp14");
  const prototype: { setPrivateKey(exponent: Uint8Array): void } = DiffieHellman.prototype;
  const placeholder = Uint8Array.of(1);
  return (exponent) => {
    const using = (compute: () => Buffer): Uint8Array => {
      prototype.setPrivateKey.call(group, exponent);
      try {
        return compute();
      } finally {
        prototype.setPrivateKey.call(group, placeholder);
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
 * Returns a backend that uses key objects, imported from and exported to DER: PKCS#8 for an exponent,
 * SubjectPublicKeyInfo for a value. OpenSSL overwrites an exponent when its key object is garbage-collected.
 */
export function keyObjects(): ModExpBackend {
  const integer = (value: Uint8Array) =>
    der(0x02, (value[0]! & 0x80) === 0 ? [value] : [Uint8Array.of(0), value]);
  const dhKeyAgreement = Uint8Array.of(0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 3, 1);
  const parameters = der(0x30, [integer(PRIME), integer(Uint8Array.of(GENERATOR))]);
  const algorithm = der(0x30, [dhKeyAgreement, parameters]);
  const version = integer(Uint8Array.of(0));

  const importPrivateKey = (exponent: Uint8Array): KeyObject => {
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
    const privateKey = importPrivateKey(exponent);
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

/** Encodes one DER element and overwrites the intermediate copy of its content. */
function der(tag: number, parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const header =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  const encoded = Buffer.concat([Uint8Array.of(tag, ...header), content]);
  content.fill(0);
  return encoded;
}

/** Returns the contents of the consecutive DER elements in `bytes`, without an INTEGER's leading zero byte. */
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
