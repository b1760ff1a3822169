/** Keys of a directory, for the library. */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadKeys } from "../../../src/index.ts";
import { IGNORED_FILES, REJECTED_KEYS } from "../../support/key-directory-files.ts";
import { temporaryDirectory } from "../../support/programs.ts";

const write = (path: string, contents: string | Buffer) => writeFileSync(path, contents, { mode: 0o600 });

describe("loadKeys()", () => {
  it("reads a directory as spiped -d does, and warns about the same files", async () => {
    const keys = temporaryDirectory();
    write(join(keys, "alice.key"), randomBytes(32));
    write(join(keys, "alice.2027.key"), randomBytes(20));
    write(join(keys, "alice.toml"), "expires = 2027-01-31\n");
    for (const [file, [contents]] of Object.entries({ ...IGNORED_FILES, ...REJECTED_KEYS }))
      write(join(keys, file), contents);
    const warnings: string[] = [];
    const loaded = await loadKeys(keys, { onWarning: (message) => warnings.push(message) });
    expect(loaded.map(({ name, expires }) => [name, expires?.toISOString()])).toEqual([
      ["alice", "2027-01-31T00:00:00.000Z"],
      ["alice", "2027-01-31T00:00:00.000Z"],
    ]);
    for (const file of [...Object.keys(IGNORED_FILES), ...Object.keys(REJECTED_KEYS), "alice.2027.key"])
      expect(warnings.filter((warning) => warning.split(/:? /).includes(join(keys, file))).length, file).toBe(
        1,
      );
  });
});
