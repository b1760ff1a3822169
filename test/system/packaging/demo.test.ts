/** The demo, which is the first of the README's commands. */
import { expect, it } from "vitest";
import { start, until } from "../../support/programs.ts";

it("the demo sends data through two daemons, and ends at SIGINT", async () => {
  const demo = start([process.execPath, "examples/demo.mjs"]);
  await until(() => String(demo.stdout()).includes("until you press Ctrl-C"));
  expect(String(demo.stdout())).toContain("8 MiB of random data the same way; every byte came back");
  process.kill(demo.pid, "SIGINT");
  expect(await demo.ended).toEqual({ status: 0, signal: null });
});
