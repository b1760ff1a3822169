/** Key fingerprints, which two operators can compare to check that they hold the same key. */
import { createHmac } from "node:crypto";
import { Secret } from "./secret.ts";

/** Input that the protocol never authenticates with K: all the protocol's inputs are longer. */
const LABEL = "spiped key fingerprint";

/**
 * Returns the first 64 bits of HMAC(K, label), as four groups of hexadecimal digits. Anyone who has it can test guesses
 * at the key: it is safe to publish for a random key but exposes a guessable one.
 */
export function fingerprint(secret: Secret): string {
  const mac = createHmac("sha256", Secret.reveal(secret)).update(LABEL).digest("hex");
  return mac.slice(0, 16).replace(/(....)(?!$)/g, "$1-");
}
