/** A key's fingerprint: what two people can compare aloud to see that they hold the same key. */
import { createHmac } from "node:crypto";
import { Secret } from "./secret.ts";

/** Never authenticated with K otherwise: what the protocol authenticates is longer. */
const LABEL = "spiped key fingerprint";

/**
 * The first 64 bits of HMAC(K, label), in four groups of hexadecimal digits. Whoever knows it can test guesses of the
 * key, so it says nothing of a random key and gives a guessable one away.
 */
export function fingerprint(secret: Secret): string {
  const tag = createHmac("sha256", Secret.reveal(secret)).update(LABEL).digest("hex");
  return tag.slice(0, 16).replace(/(....)(?!$)/g, "$1-");
}
