/** A few seconds of the soak test; run `node test/soak/run.mjs MINUTES` for a full one. */
import { expect, it } from "vitest";
import { run } from "../../support/programs.ts";

it("a short soak test finds no failure", { timeout: 180_000 }, async () => {
  const { status, stdout } = await run([process.execPath, "test/soak/run.mjs", "0.08"]);
  expect(stdout.toString()).toMatch(/no failures\n$/);
  expect(status).toBe(0);
});
