/** The demo, which is the first of the README's commands. */
import { expect, it } from "vitest";
import { cleanUp, start, until } from "../../support/programs.ts";

it("the demo sends data through two daemons, and ends at SIGINT", async () => {
  const demo = start([process.execPath, "examples/demo.mjs"]);
  // Only a demo that can end by itself also ends its daemons.
  cleanUp(() => void demo.child.kill("SIGINT"));
  await until(() => String(demo.stdout()).includes("until you press Ctrl-C"));
  expect(String(demo.stdout())).toContain("8 MiB of random data the same way; the echo was identical");
  process.kill(demo.pid, "SIGINT");
  expect(await demo.ended).toEqual({ status: 0, signal: null });
});
