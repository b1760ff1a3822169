/** Directories of key files. */
import { randomBytes } from "node:crypto";
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readKeyDirectory } from "../../../src/config/key-directory.ts";
import { temporaryDirectory } from "../../support/programs.ts";

const write = (path: string, contents: string | Buffer) => writeFileSync(path, contents, { mode: 0o600 });

it("a directory of keys is read without losing a key that is replaced at the same time", async () => {
  const keys = temporaryDirectory();
  const rotated = join(keys, "alice.key");
  const next = join(keys, "alice.next.key");
  for (let i = 0; i < 20; i += 1) write(join(keys, `client${i}.key`), randomBytes(32));
  write(rotated, randomBytes(32));
  let done = false;
  const rotating = (async () => {
    while (!done) {
      write(next, randomBytes(32));
      renameSync(next, rotated);
      await new Promise((later) => setImmediate(later));
    }
  })();
  for (let i = 0; i < 20; i += 1) {
    const { keys: found, problems } = await readKeyDirectory(keys, { known: ["alice.key"] });
    expect(found.filter(({ name }) => name.startsWith("client"))).toHaveLength(20);
    expect(found.some(({ file }) => file === "alice.key")).toBe(true);
    expect(problems).toEqual([]);
  }
  done = true;
  await rotating;
});
