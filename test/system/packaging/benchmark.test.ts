/** The benchmark, `npm run bench`: cheap rows of a quick run. What the figures are depends on the machine. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { describeIfInstalled } from "../../support/requirements.ts";

const run = promisify(execFile);
const benchmark = (...options: string[]) =>
  run(process.execPath, ["bench/run.mjs", ...options], { timeout: 110_000 });

describeIfInstalled("spiped")("the benchmark", () => {
  it("measures both implementations and lists the missed goals", { timeout: 120_000 }, async () => {
    const { stdout, stderr } = await benchmark("--quick", "--rows", "idle-daemon,spipe");
    expect(stderr).toBe("");
    expect(stdout).toMatch(
      /^resident memory, idle daemon; node alone, MiB \| [\d.]+ \| [\d.]+ \| node [\d.]+ \| [\d.]+ \| ≤ [\d.]+ × node$/m,
    );
    expect(stdout).toMatch(
      /^spipe, start to first byte; node alone, ms \| [\d.]+ \| [\d.]+ \| node [\d.]+ \| /m,
    );
    expect(stdout).toMatch(/^goals missed: [012] of 2 measured$/m);
  });

  it("rejects the name of a row that does not exist", async () => {
    await expect(benchmark("--quick", "--rows", "nonsense")).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining("unknown row nonsense; the rows are "),
    });
  });
});
