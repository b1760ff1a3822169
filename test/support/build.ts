import { execFileSync } from "node:child_process";

/** Builds the programs once before the tests, which run the built ones. */
export function setup(): void {
  execFileSync(process.execPath, ["node_modules/tsup/dist/cli-default.js", "--silent"], { stdio: "inherit" });
}
