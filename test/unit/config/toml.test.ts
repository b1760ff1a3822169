/** Errors in TOML files name the line. */
import { describe, expect, it } from "vitest";
import { parseToml } from "../../../src/config/toml.ts";

/** Returns the first line of the error for a field. */
async function errorFor(text: string, ...path: string[]): Promise<string | undefined> {
  const { makeError } = await parseToml("file", text);
  return makeError([{ path, text: "wrong" }]).lines[0];
}

describe("the error for a field", () => {
  it.each([
    ["a = 1\n\n# x\nb = 2\n", ["a"], "file:1: a: wrong"],
    ["a = 1\n\n# x\nb = 2\n", ["b"], "file:4: b: wrong"],
    ['a = """\nb = 1\n[c]\n"""\nb = 2\n', ["a"], "file:4: a: wrong"],
    ['a = """\nb = 1\n[c]\n"""\nb = 2\n', ["b"], "file:5: b: wrong"],
    ["a = '''\n\nb = 1\n'''\n[c]\nd = 1\n", ["c", "d"], "file:6: c.d: wrong"],
    ["[a]\nx = [\n1,\n\n# x\n[2],\n]\ny = 1\n", ["a", "x"], "file:7: a.x: wrong"],
    ["[a]\nx = [\n1,\n\n# x\n[2],\n]\ny = 1\n", ["a", "y"], "file:8: a.y: wrong"],
    ["[a]\nx = [\n1,\n]\n[b]\n", ["b", "missing"], "file:5: b.missing: wrong"],
    ["a.b = 1\n\"c d\" = 2\n'e' . f = 3\n", ["c d"], "file:2: c d: wrong"],
    ["a.b = 1\n\"c d\" = 2\n'e' . f = 3\n", ["e", "f"], "file:3: e.f: wrong"],
    ["", ["a"], "file: a: wrong"],
  ])("in %j, %j", async (text, path, error) => {
    expect(await errorFor(text, ...path)).toBe(error);
  });

  // Takes minutes if each beginning of the file is parsed.
  it.each([
    ["string", `"""${"\n".repeat(20_000)}"""`],
    ["list", `[\n${'"192.0.2.1",\n'.repeat(20_000)}]`],
  ])("after a %s of many lines", async (_what, value) => {
    const text = `[tunnels.a]\nlong = ${value}\nshort = 1\n`;
    const lines = text.split("\n").length;
    expect(await errorFor(text, "tunnels", "a", "long")).toBe(`file:${lines - 2}: tunnels.a.long: wrong`);
    expect(await errorFor(text, "tunnels", "a", "short")).toBe(`file:${lines - 1}: tunnels.a.short: wrong`);
  });

  it("leaves out the line if it takes too long to find", async () => {
    const text = `a = [\n${"[1],\n\n".repeat(10_000)}]\nb = 1\n`;
    expect(await errorFor(text, "a")).toBe("file: a: wrong");
  });
});
