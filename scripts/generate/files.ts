/** The files that are generated from the option table. `npm run generate` writes them. */
import { readFileSync } from "node:fs";
import { bashCompletion, fishCompletion, zshCompletion } from "./completions.ts";
import { keyCommandSection, optionSection } from "./manual.ts";
import { optionReference } from "./reference.ts";

/** A generated file. */
export interface GeneratedFile {
  /** Path from the root of the repository. */
  readonly path: string;
  readonly contents: string;
}

/** Returns all generated files, with their present contents where only a part is generated. */
export function generateFiles(): GeneratedFile[] {
  return [
    { path: "deploy/completions/spiped.bash", contents: bashCompletion() },
    { path: "deploy/completions/_spiped", contents: zshCompletion() },
    { path: "deploy/completions/spiped.fish", contents: fishCompletion() },
    { path: "docs/reference/options.md", contents: optionReference() },
    replaceSections("man/spiped.1", {
      options: optionSection("spiped"),
      "key commands": keyCommandSection(),
    }),
    replaceSections("man/spipe.1", { options: optionSection("spipe") }),
  ];
}

/** Replaces what is between the comments `Generated: NAME` and `End of NAME` of a manual page. */
function replaceSections(path: string, sections: Readonly<Record<string, string>>): GeneratedFile {
  let contents = readFileSync(path, "utf8");
  for (const [name, section] of Object.entries(sections)) {
    const [start, end] = [`.\\" Generated: ${name}\n`, `.\\" End of ${name}\n`];
    const [before, rest] = split(contents, start, path);
    const [, after] = split(rest, end, path);
    contents = before + start + section + end + after;
  }
  return { path, contents };
}

function split(text: string, mark: string, path: string): [before: string, after: string] {
  const index = text.indexOf(mark);
  if (index === -1) throw new Error(`${path} lacks the line ${mark}`);
  return [text.slice(0, index), text.slice(index + mark.length)];
}
