import { execFileSync } from "node:child_process";

/** Tests run the built programs; build them once, from the code as it is. */
export function setup(): void {
  execFileSync(process.execPath, ["node_modules/tsup/dist/cli-default.js", "--silent"], { stdio: "inherit" });
}
