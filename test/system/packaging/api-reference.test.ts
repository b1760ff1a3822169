/** The reference of the library, which is generated and committed. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { temporaryDirectory } from "../../support/programs.ts";

/** Returns the contents of all files in a directory, by their relative paths. */
function contentsOf(directory: string): Map<string, string> {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  return new Map(
    files
      .map((file) => join(file.parentPath, file.name))
      .map((path): [string, string] => [path.slice(directory.length), readFileSync(path, "utf8")])
      .sort(),
  );
}

it("docs/api is what npm run docs writes", { timeout: 120_000 }, () => {
  const directory = temporaryDirectory();
  const typedoc = "node_modules/typedoc/bin/typedoc";
  execFileSync(process.execPath, [typedoc, "--logLevel", "Warn", "--out", directory], {
    stdio: "pipe",
    timeout: 110_000,
  });
  expect(contentsOf(directory)).toEqual(contentsOf("docs/api"));
});
