/** The keys of a tunnel, read at the start and at a reload. */
import { randomBytes } from "node:crypto";
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readKeys } from "../../../src/config/read-keys.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import { temporaryDirectory } from "../../support/programs.ts";

const write = (path: string, contents: string | Buffer) => writeFileSync(path, contents, { mode: 0o600 });

it("a directory of keys keeps a key whose file has become unreadable, and is used without a key that was never readable", async () => {
  const secret = Secret.fromKeyFile(randomBytes(32));
  const keys = temporaryDirectory();
  write(join(keys, "bob.key"), randomBytes(32));
  // A symbolic link to itself, which even root can't read.
  for (const file of ["alice.key", "carol.key"]) symlinkSync(file, join(keys, file));
  const said: string[] = [];
  const report = {
    warn: (message: string) => said.push(`warn ${message}`),
    refuse: (message: string) => said.push(`refuse ${message}`),
    ignore: (message: string) => said.push(`ignore ${message}`),
  };
  const previous = [{ name: "alice", path: join(keys, "alice.key"), secret }];
  const read = await readKeys(keys, report, previous);
  expect(read.keys.map(({ name }) => name).sort()).toEqual(["alice", "bob"]);
  expect(read.keys.find(({ name }) => name === "alice")!.secret).toBe(secret);
  const why = "Too many levels of symbolic links";
  expect(said).toEqual([
    `warn cannot read ${join(keys, "alice.key")}: ${why}; keeping the previous key`,
    `refuse cannot read ${join(keys, "carol.key")}: ${why}`,
  ]);
});
