/** The completions offer every option that -h lists; tested in the shells themselves. */
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import { commandOf, type Program, run, temporaryDirectory } from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

const FILES = resolve("deploy/completions");

async function listed(program: Program): Promise<string[]> {
  const { stdout } = await run([...commandOf("ours", program), "-h"]);
  return [...stdout.toString().matchAll(/^ {2}(?:-\w, | {4})(--[a-z-]+)/gm)].map(([, long]) => long!).sort();
}

const words = (text: Buffer) => [...new Set(text.toString().match(/^--[a-z-]+/gm))].sort();

describeIfInstalled(
  "bash",
  "zsh",
  "fish",
)("completion of long options", () => {
  it.each(["spiped", "spipe"] as const)("in bash offers all options of %s", async (program) => {
    const script = `source ${FILES}/spiped.bash; COMP_WORDS=(${program} --); COMP_CWORD=1; _spiped; printf '%s\\n' "\${COMPREPLY[@]}"`;
    expect(words((await run(["bash", "-c", script])).stdout)).toEqual(await listed(program));
  });

  it.each(["spiped", "spipe"] as const)("in fish offers all options of %s", async (program) => {
    const script = `source ${FILES}/spiped.fish; complete -C '${program} --'`;
    const { stdout } = await run(["fish", "--no-config", "-c", script], "", {
      env: { ...process.env, HOME: temporaryDirectory() },
    });
    expect(words(stdout)).toEqual(await listed(program));
  });

  it.each(["spiped", "spipe"] as const)("in zsh offers all options of %s", async (program) => {
    // Completion needs a terminal, which zsh's zpty module provides.
    const home = temporaryDirectory();
    const script = `
      zmodload zsh/zpty
      zpty shell "HOME=${home} ZDOTDIR=${home} TERM=dumb zsh -f -i"
      zpty -w shell "fpath=(${FILES} \\$fpath); autoload -U compinit; compinit -u -D; LISTMAX=1000 COLUMNS=80 LINES=200; zstyle ':completion:*' list-prompt ''; PS1='re''ady'; setopt no_always_last_prompt"
      zpty -r shell text '*ready*'
      # A Tab, then Ctrl-U and another line, which the shell echoes after the list.
      zpty -w shell $'${program} --\\t\\x15print done'
      zpty -r shell text '*done*'; print -r -- "$text"`;
    const { stdout } = await run(["zsh", "-f", "-c", script], "", { timeout: 20_000 });
    // A terminal's escapes.
    const text = stdout.toString().replace(/\x1b\[[\d;?]*[A-Za-z]|\r/g, "");
    const offered = [...new Set([...text.matchAll(/^(--[a-z-]+)/gm)].map(([, long]) => long!))].sort();
    const everyOption = await listed(program);
    for (const option of everyOption) expect(text).toContain(option);
    for (const option of offered) expect(everyOption).toContain(option);
  });
});

describeIfInstalled(
  "bash",
  "zsh",
  "fish",
)("completion of spiped keys", () => {
  const COMMANDS = ["add", "list", "revoke", "rotate", "show"];

  it("in bash offers commands, clients and files", async () => {
    const directory = temporaryDirectory();
    for (const file of ["alice.key", "alice.2027.key", "bob.key", "README"])
      writeFileSync(join(directory, file), "");
    const offered = async (...typed: string[]) => {
      const list = ["spiped", "keys", ...typed].map((word) => `'${word}'`).join(" ");
      const script = `source ${FILES}/spiped.bash; COMP_WORDS=(${list}); COMP_CWORD=${typed.length + 1}; _spiped; printf '%s\\n' "\${COMPREPLY[@]}"`;
      const { stdout } = await run(["bash", "-c", script]);
      return [...new Set(stdout.toString().trim().split("\n"))].sort();
    };
    expect(await offered("")).toEqual(["--help", ...COMMANDS]);
    expect(await offered("rotate", directory, "")).toEqual(["--json", "alice", "bob"]);
    expect(await offered("revoke", directory, "a")).toEqual(["alice.2027.key", "alice.key"]);
  });

  it("in fish offers commands", async () => {
    const script = `source ${FILES}/spiped.fish; complete -C 'spiped keys '`;
    const { stdout } = await run(["fish", "--no-config", "-c", script], "", {
      env: { ...process.env, HOME: temporaryDirectory() },
    });
    const offered = stdout
      .toString()
      .trim()
      .split("\n")
      .map((line) => line.split("\t")[0]!);
    expect(offered.sort()).toEqual(COMMANDS);
  });

  it("in zsh has no syntax errors", async () => {
    expect(await run(["zsh", "-n", `${FILES}/_spiped`])).toMatchObject({ status: 0, stderr: "" });
  });
});
