/** Keys of a directory, for the library. */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadKeys } from "../../../src/index.ts";
import { temporaryDirectory } from "../../support/programs.ts";

const write = (path: string, contents: string | Buffer) => writeFileSync(path, contents, { mode: 0o600 });

describe("loadKeys()", () => {
  /** Files that are not keys: contents, and the reason in the warning. */
  const OTHERS = {
    "README.txt": ["Each client has a key of its own here.\n", "only files named NAME.key are keys"],
    "bob.key~": [randomBytes(32), "only files named NAME.key are keys"],
    "alice.key.bak": [randomBytes(32), "only files named NAME.key are keys"],
    bob: [randomBytes(32), "only files named NAME.key are keys"],
    "alice.2027.toml": ["max-connections = 1\n", "the settings of alice are in alice.toml"],
  } as const;
  const REFUSED = {
    "empty.key": ["", "it is empty; a key needs at least 16; create one with spiped keys"],
    "three.key": ["abc", "it has 3 bytes; a key needs at least 16; create one with spiped keys"],
  } as const;

  it("reads a directory as spiped -d does, and warns about the same files", async () => {
    const keys = temporaryDirectory();
    write(join(keys, "alice.key"), randomBytes(32));
    write(join(keys, "alice.2027.key"), randomBytes(20));
    write(join(keys, "alice.toml"), "expires = 2027-01-31\n");
    for (const [file, [contents]] of Object.entries({ ...OTHERS, ...REFUSED }))
      write(join(keys, file), contents);
    const warnings: string[] = [];
    const loaded = await loadKeys(keys, { onWarning: (message) => warnings.push(message) });
    expect(loaded.map(({ name, expires }) => [name, expires?.toISOString()])).toEqual([
      ["alice", "2027-01-31T00:00:00.000Z"],
      ["alice", "2027-01-31T00:00:00.000Z"],
    ]);
    for (const file of [...Object.keys(OTHERS), ...Object.keys(REFUSED), "alice.2027.key"])
      expect(warnings.filter((warning) => warning.split(/:? /).includes(join(keys, file))).length, file).toBe(
        1,
      );
  });
});
