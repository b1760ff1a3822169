/**
 * The shared secret K (section 1.1 of the protocol): SHA-256 over every byte of the key file.
 */
import { createHash, timingSafeEqual } from "node:crypto";

/**
 * Holds K. It has no own public property, so that `util.inspect` and `JSON.stringify` never show the key, even inside
 * another object.
 */
export class Secret {
  readonly #key: Uint8Array;
  #destroyed = false;

  private constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** Derives K from the contents of a key file. Nothing is trimmed; empty contents are valid. */
  static fromKeyFile(contents: Uint8Array): Secret {
    const digest = createHash("sha256").update(contents).digest();
    const key = Uint8Array.from(digest);
    digest.fill(0);
    return new Secret(key);
  }

  /** Type guard for any value. */
  static is(value: unknown): value is Secret {
    return typeof value === "object" && value !== null && #key in value;
  }

  /**
   * Returns K itself, 32 bytes, for use inside this package only. The caller must not store or modify it.
   *
   * @internal
   * @throws Error after `destroy()`.
   */
  static reveal(secret: Secret): Uint8Array {
    if (secret.#destroyed) throw new Error("the secret has been destroyed");
    return secret.#key;
  }

  /**
   * Returns true if both hold the same key. Takes constant time.
   *
   * @internal
   * @throws Error after `destroy()`.
   */
  static equal(a: Secret, b: Secret): boolean {
    return timingSafeEqual(Secret.reveal(a), Secret.reveal(b));
  }

  /**
   * Returns a copy, which must be destroyed separately.
   *
   * @internal
   * @throws Error after `destroy()`.
   */
  static copy(secret: Secret): Secret {
    return new Secret(Secret.reveal(secret).slice());
  }

  /**
   * Creates a secret from K, as sent by another process of this program. `key` is overwritten.
   *
   * @internal
   */
  static fromKey(key: Uint8Array): Secret {
    // Not `slice()`, which shares the memory of a Buffer.
    const secret = new Secret(Uint8Array.from(key));
    key.fill(0);
    return secret;
  }

  /** Overwrites K. Handshakes that have not yet derived their session keys will throw. */
  destroy(): void {
    this.#key.fill(0);
    this.#destroyed = true;
  }
}
