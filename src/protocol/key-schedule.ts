/**
 * The key schedule (sections 1.4 and 1.7 of the protocol): derives the keys that authenticate the Diffie-Hellman values
 * from K and the nonces, and the session keys from K, the nonces and the Diffie-Hellman result.
 *
 * Both derivations are PBKDF2-HMAC-SHA256 with one iteration, so that output block i is HMAC(K, salt || BE32(i)).
 */
import { createHmac, hash, pbkdf2Sync } from "node:crypto";
import type { DirectionKeys } from "./engine/engine.ts";
import { Secret } from "./secret.ts";

/** Bytes of a nonce. */
export const NONCE_SIZE = 32;
const KEY_SIZE = 32;

/** The two sides of a connection: the client opened it (`-e`, `spipe`), the server accepted it (`-d`). */
export type Side = "client" | "server";

/** Nonces of both sides, 32 bytes each. */
export interface Nonces {
  readonly client: Uint8Array;
  readonly server: Uint8Array;
}

/** Index of each side's keys in the output of a derivation. */
const SIDE_INDEX = { client: 0, server: 1 } as const;

const HASH_BLOCK = 64;

/** One-shot SHA-256, which some runtimes lack. */
const oneShot: typeof hash | undefined = hash;

/** Reusable buffers for HMAC-SHA256 with 32-byte keys. The caller writes a message of the fixed size to `message`. */
class HmacScratch {
  readonly message: Uint8Array;
  readonly #inner: Buffer;
  readonly #outer = Buffer.alloc(HASH_BLOCK + 32, 0x5c);

  constructor(messageSize: number) {
    this.#inner = Buffer.alloc(HASH_BLOCK + messageSize, 0x36);
    this.message = this.#inner.subarray(HASH_BLOCK).fill(0);
  }

  digest(key: Uint8Array): Buffer {
    const inner = this.#inner;
    const outer = this.#outer;
    for (let i = 0; i < KEY_SIZE; i += 1) {
      const byte = key[i]!;
      inner[i] = byte ^ 0x36;
      outer[i] = byte ^ 0x5c;
    }
    // A string of bytes ("binary" is Latin-1), because a Buffer would take an allocation.
    outer.write(oneShot!("sha256", inner, "binary"), HASH_BLOCK, "binary");
    const mac = oneShot!("sha256", outer, "buffer");
    for (let i = 0; i < KEY_SIZE; i += 1) {
      inner[i] = 0;
      outer[i] = 0;
      outer[HASH_BLOCK + i] = 0;
    }
    return mac;
  }
}

const derivation = new HmacScratch(2 * NONCE_SIZE + 4);
const authentication = new HmacScratch(256);

/**
 * Authenticates a side's Diffie-Hellman value: HMAC(dhmac_side, y), where dhmac_side is one 32-byte half of
 * dk1 = PBKDF2(K, nonce_C || nonce_S, 1, 64).
 *
 * A server computes this for each key that it tries, so only the required half is derived. One-shot hashes, if
 * available, take less than half the time of `createHmac` and create less work for the garbage collector.
 *
 * @param y - the value as sent, 256 bytes.
 * @returns the MAC, 32 bytes.
 */
export function authenticateValue(secret: Secret, nonces: Nonces, side: Side, y: Uint8Array): Uint8Array {
  const blockNumber = SIDE_INDEX[side] + 1;
  let key: Buffer;
  let mac: Buffer;
  if (oneShot === undefined) {
    key = createHmac("sha256", Secret.reveal(secret))
      .update(nonces.client)
      .update(nonces.server)
      .update(Uint8Array.of(0, 0, 0, blockNumber))
      .digest();
    mac = createHmac("sha256", key).update(y).digest();
  } else {
    derivation.message.set(nonces.client);
    derivation.message.set(nonces.server, NONCE_SIZE);
    derivation.message[2 * NONCE_SIZE + 3] = blockNumber;
    key = derivation.digest(Secret.reveal(secret));
    authentication.message.set(y);
    mac = authentication.digest(key);
  }
  key.fill(0);
  return mac;
}

/** One side's session keys. Call `destroy()` once ciphers have been created for both directions. */
export class SessionKeys {
  /** Keys for the packets that this side sends. */
  readonly seal: DirectionKeys;
  /** Keys for the packets that this side receives. */
  readonly open: DirectionKeys;
  readonly #material: Uint8Array;

  /** @param material - dk2: E_C || H_C || E_S || H_S, 128 bytes. This object takes ownership of it. */
  constructor(material: Uint8Array, side: Side) {
    const direction = (sender: Side): DirectionKeys => {
      const start = SIDE_INDEX[sender] * 2 * KEY_SIZE;
      return {
        encrypt: material.subarray(start, start + KEY_SIZE),
        mac: material.subarray(start + KEY_SIZE, start + 2 * KEY_SIZE),
      };
    };
    this.#material = material;
    this.seal = direction(side);
    this.open = direction(side === "client" ? "server" : "client");
  }

  /** Overwrites the keys. */
  destroy(): void {
    this.#material.fill(0);
  }
}

/**
 * Derives the session keys: dk2 = PBKDF2(K, nonce_C || nonce_S || y_SC, 1, 128).
 *
 * @param shared - y_SC, the Diffie-Hellman result, 256 bytes. It is overwritten.
 */
export function deriveSessionKeys(
  secret: Secret,
  nonces: Nonces,
  shared: Uint8Array,
  side: Side,
): SessionKeys {
  const salt = new Uint8Array(2 * NONCE_SIZE + shared.length);
  salt.set(nonces.client);
  salt.set(nonces.server, NONCE_SIZE);
  salt.set(shared, 2 * NONCE_SIZE);
  const material = pbkdf2Sync(Secret.reveal(secret), salt, 1, 4 * KEY_SIZE, "sha256");
  salt.fill(0);
  shared.fill(0);
  return new SessionKeys(material, side);
}
