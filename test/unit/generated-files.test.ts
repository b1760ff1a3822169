/** The files that are generated from the option table are up to date. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { generateFiles } from "../../scripts/generate/files.ts";

it.each(generateFiles())("$path is what npm run generate writes", ({ path, contents }) => {
  expect(readFileSync(path, "utf8")).toBe(contents);
});
