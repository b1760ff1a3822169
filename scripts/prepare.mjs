/**
 * Builds dist/, for npm's `prepare`. `npm install -g CHECKOUT` calls it without having installed what the build needs,
 * so that comes first where it is missing.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Without the options of the npm that called us, which may say `--global`. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name)));

function run(command, ...args) {
  const { status } = spawnSync(command, args, { cwd: root, env, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync(new URL("../node_modules/tsup", import.meta.url))) run("npm", "ci", "--ignore-scripts");
run(process.execPath, "node_modules/tsup/dist/cli-default.js");
