/** Paths of which other users can change a part. */
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { requireTrusted, requireTrustedFile } from "../../../src/net/trusted-path.ts";
import { temporaryDirectory } from "../../support/programs.ts";

/** Creates a directory with this mode, which contains a file. */
function directoryWith(mode: number): { directory: string; file: string } {
  const directory = join(temporaryDirectory(), "directory");
  mkdirSync(directory);
  const file = join(directory, "file");
  writeFileSync(file, "", { mode: 0o600 });
  chmodSync(directory, mode);
  return { directory, file };
}

describe("a path", () => {
  it.each([
    [0o755, undefined],
    [0o777, "world-writable"],
    [0o775, "group-writable"],
    // With the sticky bit, others cannot replace what is ours, nor what does not exist.
    [0o1777, undefined],
    [0o1775, undefined],
  ])("in a directory of mode %o is trusted or not: %s", (mode, reason) => {
    const { directory, file } = directoryWith(mode);
    for (const path of [file, join(directory, "missing")]) {
      if (reason === undefined) expect(() => requireTrusted(path)).not.toThrow();
      else
        expect(() => requireTrusted(path)).toThrow(
          `other users can replace ${path}: ${directory} is ${reason}; use a directory that only root can change`,
        );
    }
  });

  it("is trusted only if each of its directories is, before and after links", () => {
    const trusted = directoryWith(0o755);
    const shared = directoryWith(0o777);
    const inside = join(shared.directory, "inside");
    mkdirSync(inside);
    expect(() => requireTrusted(join(inside, "file"))).toThrow(`other users can replace ${inside}`);
    const link = join(trusted.directory, "link");
    symlinkSync(inside, link);
    expect(() => requireTrusted(join(link, "file"))).toThrow(`other users can replace ${inside}`);
    const back = join(shared.directory, "back");
    symlinkSync(trusted.directory, back);
    expect(() => requireTrusted(join(back, "file"))).toThrow(`other users can replace ${back}`);
  });

  it("that is a link to itself, or has a missing directory, is an error of the system", () => {
    const { directory } = directoryWith(0o755);
    const loop = join(directory, "loop");
    symlinkSync("loop", loop);
    expect(() => requireTrusted(loop)).toThrow(expect.objectContaining({ code: "ELOOP" }));
    expect(() => requireTrusted(join(directory, "missing/file"))).toThrow(
      expect.objectContaining({ code: "ENOENT" }),
    );
  });
});

it("a file is trusted only if no other user can write to it", () => {
  const { file } = directoryWith(0o755);
  expect(() => requireTrustedFile(file)).not.toThrow();
  for (const mode of [0o602, 0o620]) {
    chmodSync(file, mode);
    expect(() => requireTrustedFile(file)).toThrow(/other users can change it: .* is (world|group)-writable/);
  }
});
