/** Lines for a stream that may not be read. */
import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { LineWriter } from "../../../../src/daemon/observe/line-writer.ts";
import { until } from "../../../support/programs.ts";

describe("a writer of lines", () => {
  it("drops lines that are not read, counts them, and resumes when the reader has caught up", async () => {
    const stream = new PassThrough({ highWaterMark: 1000 });
    const dropped: number[] = [];
    const writer = new LineWriter(stream, (count) => {
      dropped.push(count);
      writer.write("dropped\n");
    });
    const line = `${"x".repeat(999)}\n`;
    for (let i = 0; i < 400; i += 1) writer.write(line);
    expect(stream.writableLength).toBeLessThanOrEqual(256 * 1024);
    const lines: string[] = [];
    stream.on("data", (chunk) => lines.push(String(chunk)));
    await until(() => dropped.length > 0);
    writer.write("after\n");
    await until(() => lines.at(-1) === "after\n");
    expect(lines.filter((text) => text === line)).toHaveLength(400 - dropped[0]!);
    expect(lines.slice(-2)).toEqual(["dropped\n", "after\n"]);
    expect(dropped).toHaveLength(1);
  });
});
