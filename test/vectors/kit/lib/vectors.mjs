/** The kit's files. */
import { readFileSync } from "node:fs";

const load = (name) => JSON.parse(readFileSync(new URL(`../${name}.json`, import.meta.url), "utf8"));

export const handshakes = load("handshakes");
export const packets = load("packets");
export const keyFiles = load("key-files");

/** Contents of the key file that the programs under test have. */
export const KEY_FILE = Buffer.from(handshakes[0].key_file, "hex");

/** Nonces, by side. */
export const NONCES = Object.fromEntries(
  ["client", "server"].map((side) => [
    side,
    Buffer.from(handshakes.find((vector) => vector.side === side).nonce, "hex"),
  ]),
);

/** Returns the options that a case of handshakes.json asks for. */
export const optionsOf = ({ weak, require_forward_secrecy }) =>
  weak ? ["-f"] : require_forward_secrecy ? ["-g"] : [];

/** Returns true for a case of packets.json that can be played to a running program. */
export const isPlayable = ({ first_packet }) => first_packet === "0";
