/** The man pages: they format without warnings and document every option. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { commandOf, run } from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

describeIfInstalled(
  "man",
  "groff",
  "mandoc",
)("the man pages", () => {
  it.each(["spiped", "spipe"] as const)("%s.1 formats without a warning", async (program) => {
    const page = `man/${program}.1`;
    expect(await run(["mandoc", "-T", "lint", "-W", "warning", page])).toMatchObject({
      status: 0,
      stderr: "",
    });
    const { stdout, stderr } = await run(["groff", "-mandoc", "-Tutf8", "-ww", page]);
    expect(stderr).toBe("");
    expect(stdout.toString()).toMatch(/D.*E.*S.*C.*R.*I.*P.*T.*I.*O.*N/);
  });

  it("are displayed by man", async () => {
    const { status, stdout } = await run(["man", "-l", "man/spiped.1"], "", {
      env: { ...process.env, MANPAGER: "cat" },
    });
    expect(status).toBe(0);
    expect(stdout.toString()).toContain("encrypted pipes between socket addresses");
  });
});

describe("the man pages", () => {
  it.each(["spiped", "spipe"] as const)("%s.1 documents every option that -h lists", async (program) => {
    const { stdout } = await run([...commandOf("ours", program), "-h"]);
    const listed = [...stdout.toString().matchAll(/^ {2}(?:-(\w), | {4})--([a-z-]+)/gm)];
    expect(listed.length).toBeGreaterThan(5);
    const page = readFileSync(`man/${program}.1`, "utf8");
    const documented = [...page.matchAll(/^\.It Fl (.*)$/gm)].map(([, rest]) => ` ${rest} `);
    for (const [, letter, long] of listed) {
      const entry = documented.find((names) => names.includes(` -${long} `));
      expect(entry, `--${long}`).toBeDefined();
      if (letter !== undefined) expect(entry).toContain(` ${letter} `);
    }
  });
});
