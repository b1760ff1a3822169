/** Reads tables of the documentation. */
import { readFileSync } from "node:fs";

/** Returns the cells of all rows of a Markdown file's tables, without their heads, marks of code removed. */
export function tableRows(file: string): string[][] {
  return readFileSync(file, "utf8")
    .replaceAll(/^\|.*\n\|[-|]+\|$/gm, "")
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim().replaceAll("`", "")),
    );
}
