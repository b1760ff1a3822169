/**
 * Diffie-Hellman over RFC 3526 group 14, the way the protocol uses it (sections 1.5 to 1.7): the exponent is
 * 2^258 + x for 32 random bytes x, and every value is exactly 256 bytes, big-endian, padded on the left.
 *
 * The exponentiations are OpenSSL's, through `node:crypto`, in one of two ways that were measured per call:
 * from Node 22 on key objects take about 0.3 ms and the classic object's constructor takes 170 ms from Node 24
 * on, because it checks the prime; on Node 20 key objects take up to 1.6 ms and the classic object 0.24 ms.
 */
import {
  type DiffieHellman as ClassicDiffieHellman,
  createDiffieHellman,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  getDiffieHellman,
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

/**
 * y = 2^(2^258 + x) mod p.
 *
 * @param x 32 random bytes.
 * @returns 256 bytes.
 */
export function publicValue(x: Uint8Array): Uint8Array {
  return withExponent(x, backend().power);
}

/**
 * peer^(2^258 + x) mod p.
 *
 * OpenSSL refuses the values 0, 1 and p-1, which the protocol accepts: every peer with a weak handshake sends 1.
 * Their powers are known without computing.
 *
 * @param peer the peer's value, 256 bytes, below p.
 * @param x 32 random bytes.
 * @param way the way to exponentiate; the quickest here if none is given.
 * @returns 256 bytes; secret unless the peer chose one of the three values.
 */
export function sharedValue(peer: Uint8Array, x: Uint8Array, way: Backend = backend()): Uint8Array {
  if (sameValue(peer, ZERO)) return ZERO.slice();
  if (sameValue(peer, ONE)) return ONE.slice();
  if (sameValue(peer, PRIME_MINUS_ONE)) {
    const odd = (x[EXPONENT_RANDOM_SIZE - 1]! & 1) === 1;
    return odd ? PRIME_MINUS_ONE.slice() : ONE.slice();
  }
  return withExponent(x, (exponent) => {
    try {
      return way.agree(peer, exponent);
    } catch {
      // From Node 22 on OpenSSL refuses a value that is no power of 2, too. Then p - peer is one, as p - 1 is not; and
      // (-peer)^e is peer^e, but for its sign if e is odd.
      const power = way.agree(negative(peer), exponent);
      if ((exponent.at(-1)! & 1) === 0) return power;
      const padded = leftPad(power);
      const result = negative(padded);
      for (const secret of [power, padded]) secret.fill(0);
      return result;
    }
  });
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

/** One way to exponentiate. Exponents are 33 bytes, results of any length up to 256 bytes. */
export interface Backend {
  power(exponent: Uint8Array): Uint8Array;
  agree(peer: Uint8Array, exponent: Uint8Array): Uint8Array;
}

let chosen: Backend | undefined;

function backend(): Backend {
  chosen ??= Number.parseInt(process.versions.node, 10) < 22 ? classicBackend() : keyObjectBackend();
  return chosen;
}

/** Builds 2^258 + x, has it used, pads the result and overwrites what was secret on the way. */
function withExponent(x: Uint8Array, use: (exponent: Uint8Array) => Uint8Array): Uint8Array {
  const exponent = new Uint8Array(1 + EXPONENT_RANDOM_SIZE);
  exponent[0] = 1 << (258 - 256);
  exponent.set(x, 1);
  try {
    const result = use(exponent);
    const padded = leftPad(result);
    result.fill(0);
    return padded;
  } finally {
    exponent.fill(0);
  }
}

function leftPad(value: Uint8Array): Uint8Array {
  const padded = new Uint8Array(VALUE_SIZE);
  padded.set(value, VALUE_SIZE - value.length);
  return padded;
}

/** One `DiffieHellman` object serves all connections: an exponent stays in it only during a call. */
export function classicBackend(): Backend {
  const group: ClassicDiffieHellman = createDiffieHellman(PRIME, GENERATOR);
  const harmless = Uint8Array.of(1);
  const using = (exponent: Uint8Array, compute: () => Buffer): Uint8Array => {
    group.setPrivateKey(exponent);
    try {
      return compute();
    } finally {
      group.setPrivateKey(harmless);
    }
  };
  return {
    power: (exponent) => using(exponent, () => group.generateKeys()),
    agree: (peer, exponent) => using(exponent, () => group.computeSecret(peer)),
  };
}

/** Key objects, made from and exported to DER: PKCS#8 for an exponent, SubjectPublicKeyInfo for a value. */
export function keyObjectBackend(): Backend {
  const integer = (value: Uint8Array) =>
    der(0x02, (value[0]! & 0x80) === 0 ? [value] : [Uint8Array.of(0), value]);
  const dhKeyAgreement = Uint8Array.of(0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 3, 1);
  const parameters = der(0x30, [integer(PRIME), integer(Uint8Array.of(GENERATOR))]);
  const algorithm = der(0x30, [dhKeyAgreement, parameters]);
  const version = integer(Uint8Array.of(0));

  const privateKey = (exponent: Uint8Array) => {
    const encoded = integer(exponent);
    const octets = der(0x04, [encoded]);
    const key = der(0x30, [version, algorithm, octets]);
    const object = createPrivateKey({ key, format: "der", type: "pkcs8" });
    for (const secret of [encoded, octets, key]) secret.fill(0);
    return object;
  };

  return {
    power(exponent) {
      const spki = createPublicKey(privateKey(exponent)).export({ format: "der", type: "spki" });
      const [, bits] = elements(elements(spki)[0]!);
      return elements(bits!.subarray(1))[0]!;
    },
    agree(peer, exponent) {
      const significant = peer.subarray(peer.findIndex((byte) => byte !== 0));
      const key = Buffer.from(der(0x30, [algorithm, der(0x03, [Uint8Array.of(0), integer(significant)])]));
      const publicKey = createPublicKey({ key, format: "der", type: "spki" });
      return diffieHellman({ privateKey: privateKey(exponent), publicKey });
    },
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
