/** Files in a directory of keys that are not accepted as keys: contents, and the reason in the warning. */
import { randomBytes } from "node:crypto";

/** Files that are not keys. */
export const IGNORED_FILES = {
  "README.txt": ["Each client has a key of its own here.\n", "only files named NAME.key are keys"],
  "bob.key~": [randomBytes(32), "only files named NAME.key are keys"],
  "alice.key.bak": [randomBytes(32), "only files named NAME.key are keys"],
  bob: [randomBytes(32), "only files named NAME.key are keys"],
  "alice.2027.toml": ["max-connections = 1\n", "the settings of alice are in alice.toml"],
} as const;

/** Keys that are too short. */
export const REJECTED_KEYS = {
  "empty.key": ["", "it is empty; a key needs at least 16; create one with spiped keys"],
  "three.key": ["abc", "it has 3 bytes; a key needs at least 16; create one with spiped keys"],
} as const;
