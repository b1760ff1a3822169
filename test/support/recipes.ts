/** The README's recipes, and an isolated environment in which they run verbatim. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { commandOf, type Implementation, run, temporaryDirectory } from "./programs.ts";

/** Returns the README's block that follows `<!-- recipe: NAME -->`, with this machine as the server. */
export function recipe(name: string): string {
  const readme = readFileSync("README.md", "utf8");
  const match = new RegExp(`<!-- recipe: ${name} -->\\n\`\`\`\\w*\\n([\\s\\S]*?)\`\`\``).exec(readme);
  if (match === null) throw new Error(`the README has no recipe ${name}`);
  return match[1]!.replaceAll("server.example.org", "127.0.0.1");
}

/**
 * Runs a bash script in its own network and process namespaces: all ports are free, and its processes end with it.
 * `spiped` and `spipe` are in its PATH, its directory has a key file only, and it ends at the first command that fails.
 *
 * @returns standard output and standard error combined.
 * @throws Error with all output if the script fails.
 */
export async function inNamespace(script: string, maker: Implementation = "ours"): Promise<string> {
  const directory = temporaryDirectory();
  for (const program of ["spiped", "spipe"] as const) {
    const command = commandOf(maker, program)
      .map((word) => `'${word}'`)
      .join(" ");
    if (maker === "ours")
      writeFileSync(join(directory, program), `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
  }
  const prologue = `set -euo pipefail; exec 2>&1; ip link set lo up; cd '${directory}'
    export HOME='${directory}' PATH="${directory}:$PATH:/usr/sbin:/sbin"
    listening() { until ss -ltnH "sport = :$1" | grep -q .; do sleep 0.02; done; }
    (umask 077; head -c 32 /dev/urandom > spiped.key)
  `;
  // Processes that are killed with the script write no coverage.
  const epilogue =
    process.env.NODE_V8_COVERAGE === undefined ? "" : "\nkill -TERM -1 2> /dev/null || true; sleep 2";
  const command = [
    "unshare",
    "--net",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
    "bash",
    "-c",
    prologue + script + epilogue,
  ];
  const { status, stdout } = await run(command);
  if (status !== 0) throw new Error(`the script ended with status ${status}:\n${stdout}`);
  return stdout.toString();
}
