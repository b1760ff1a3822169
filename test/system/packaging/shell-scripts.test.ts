/** The shell scripts have no mistake that shellcheck knows. */
import { expect, it } from "vitest";
import { run } from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

describeIfInstalled("shellcheck")("shellcheck", () => {
  it.each([".ci/run", "scripts/bare-machine.sh", "deploy/completions/spiped.bash"])(
    "accepts %s",
    async (script) => {
      const command = ["shellcheck", "--shell=bash", "--severity=warning", script];
      expect(await run(command)).toMatchObject({ status: 0, stderr: "" });
    },
  );
});
