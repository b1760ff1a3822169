/** The formal model of the protocol: its checks, and that they can fail. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { run, temporaryDirectory } from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

const TEXT = readFileSync("model/checks.maude", "utf8");
const CHECK = /^\*\*\* \[(?<expected>\w+)\] (?<name>[\w-]+): (?<claim>.+)\n(?<search>search [^]+? \.)$/gm;
const CHECKS = [...TEXT.matchAll(CHECK)].map(({ groups }) => groups as Record<string, string>);

describeIfInstalled("maude")("the formal model", () => {
  it("gives the expected result for every check", { timeout: 900_000 }, async () => {
    const { status, stdout, stderr } = await run([process.execPath, "model/run.mjs"]);
    expect({ status, stderr }, stdout.toString()).toEqual({ status: 0, stderr: "" });
    expect(stdout.toString()).toContain(
      `${CHECKS.length} of ${CHECKS.length} checks gave the expected result`,
    );
  });

  it.each([
    ["an attack that is not expected", "truncation", "[attack]", "[holds]"],
    ["an expected attack that does not exist", "no-gap", "[holds]", "[attack]"],
    [
      "an honest run that does not end",
      "honest-run",
      "server(1, plain, K(1)))), streamsEnd",
      "server(1, plain, K(2)))), streamsEnd",
    ],
    ["a search that Maude cannot read", "no-gap", "packets(3,", "packages(3,"],
  ])("reports %s", async (_, name, before, after) => {
    const directory = join(temporaryDirectory(), "model");
    cpSync("model", directory, { recursive: true });
    for (const file of ["checks.maude", "properties.maude"]) {
      const text = readFileSync(join(directory, file), "utf8");
      writeFileSync(join(directory, file), text.replaceAll(before, after));
    }
    const { status, stdout } = await run([process.execPath, join(directory, "run.mjs"), name]);
    expect(status, stdout.toString()).toBe(1);
    expect(stdout.toString()).toMatch(/^FAILED .+\n[^]*0 of 1 checks gave the expected result\n$/);
  });
});

describe("the checks of the formal model", () => {
  const conditions = (expected: readonly string[]) => {
    const searches = CHECKS.filter((check) => expected.includes(check.expected!)).map(
      ({ search }) => search!,
    );
    return new Set(searches.flatMap((search) => search.split("such that ")[1]!.match(/\b[a-z]\w+(?=\()/gi)));
  };

  it("find each violation somewhere that they exclude elsewhere", () => {
    const found = conditions(["attack", "reached"]);
    expect([...conditions(["holds"])].filter((condition) => !found.has(condition))).toEqual([]);
  });

  it("have the names that the description of the protocol gives", () => {
    const properties = readFileSync("docs/protocol.md", "utf8").split("\n## 5. Security properties\n")[1]!;
    const rows = properties.match(/^\| .+ \|$/gm)!.slice(1);
    const cited = rows.flatMap((row) =>
      row
        .split(" | ")
        .at(-1)!
        .match(/(?<=`)[\w-]+(?=`)/g),
    );
    expect(rows.length).toBeGreaterThan(20);
    expect(cited.filter((name) => !CHECKS.some((check) => check.name === name))).toEqual([]);
  });

  it("are listed in the model's README", () => {
    const rows = [
      ...readFileSync("model/README.md", "utf8").matchAll(
        /^\| ([\w-]+) \| (holds|attack|reached) \| (.+) \|$/gm,
      ),
    ];
    const listed = rows.map(([, name, expected, claim]) => ({ name, expected, claim }));
    expect(listed).toEqual(CHECKS.map(({ name, expected, claim }) => ({ name, expected, claim })));
  });
});
