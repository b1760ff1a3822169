/** The WebAssembly kernel, compared with its source. */
import { execFileSync } from "node:child_process";
import { describe, it } from "vitest";

describe("the WebAssembly kernel", () => {
  it("matches its source", () => {
    execFileSync(process.execPath, ["scripts/build-kernel.mjs", "--check"], { stdio: "pipe" });
  });
});
