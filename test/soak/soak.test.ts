/** A few seconds of the soak; `node test/soak/run.mjs MINUTES` is the real one. */
import { expect, it } from "vitest";
import { run } from "../support/programs.ts";

it("a short soak ends well", { timeout: 60_000 }, async () => {
  const { status, stdout } = await run([process.execPath, "test/soak/run.mjs", "0.08"]);
  expect(stdout.toString()).toMatch(/all is well\n$/);
  expect(status).toBe(0);
});
