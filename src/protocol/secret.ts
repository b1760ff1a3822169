/**
 * The shared secret K (section 1.1 of the protocol): SHA-256 over every byte of the key file.
 */
import { timingSafeEqual } from "node:crypto";
import { sha256 } from "@noble/hashes/sha2.js";

/**
 * Holds K. It has no enumerable or own public property, so that neither `util.inspect` nor `JSON.stringify` of
 * anything that refers to it can show the key.
 */
export class Secret {
  readonly #key: Uint8Array;
  #destroyed = false;

  private constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** Makes K from the whole contents of a key file. Nothing is trimmed; empty contents are valid. */
  static fromKeyFile(contents: Uint8Array): Secret {
    return new Secret(sha256(contents));
  }

  /** True if `value` is a secret, whatever a program without types has passed. */
  static is(value: unknown): value is Secret {
    return typeof value === "object" && value !== null && #key in value;
  }

  /**
   * K itself, 32 bytes, for the key schedule only. The caller must neither keep nor change it.
   *
   * @internal
   * @throws Error after `destroy()`.
   */
  static reveal(secret: Secret): Uint8Array {
    if (secret.#destroyed) throw new Error("the secret has been destroyed");
    return secret.#key;
  }

  /**
   * True if both are the same key, in constant time.
   *
   * @internal
   */
  static equal(a: Secret, b: Secret): boolean {
    return timingSafeEqual(Secret.reveal(a), Secret.reveal(b));
  }

  /**
   * Makes another object of the same key, which is destroyed by itself.
   *
   * @internal
   * @throws Error after `destroy()`.
   */
  static copy(secret: Secret): Secret {
    return new Secret(Secret.reveal(secret).slice());
  }

  /**
   * Makes K from a copy of it that another process of this program has sent. The copy is overwritten.
   *
   * @internal
   */
  static fromKey(key: Uint8Array): Secret {
    const secret = new Secret(key.slice());
    key.fill(0);
    return secret;
  }

  /** Overwrites K. Handshakes that have not derived their session keys yet will throw. */
  destroy(): void {
    this.#key.fill(0);
    this.#destroyed = true;
  }
}
