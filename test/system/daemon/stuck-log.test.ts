/** A log that is not read: it must neither block the daemon nor grow in its memory. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  cleanUp,
  commandOf,
  freeAddress,
  isListening,
  keyFile,
  run,
  start,
  type TestAddress,
  temporaryDirectory,
  until,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { startEcho } from "../../support/servers.ts";

/** Connects and disconnects `count` clients: each adds a line to the log. */
async function makeLines(source: TestAddress, count: number): Promise<void> {
  for (let made = 0; made < count; made += 100) {
    await Promise.all(
      Array.from({ length: 100 }, async () => {
        const socket = connect({ ...source.connect });
        socket.on("error", () => {});
        socket.resume();
        socket.end();
        await once(socket, "close");
      }),
    );
  }
}

/** Starts a program whose standard error is a pipe or a socket that is not read before `read()` is called. */
function startUnread(kind: "pipe" | "socket", command: readonly string[]) {
  if (kind === "pipe") {
    const begin = join(temporaryDirectory(), "begin");
    const reader = `until test -e ${begin} || ! kill -0 $$; do sleep 0.05; done; cat`;
    const script = `exec "$@" 2> >(${reader}) >/dev/null`;
    const shell = start(["bash", "-c", script, "-", ...command]);
    return { read: () => writeFileSync(begin, ""), text: () => shell.stdout().toString() };
  }
  // Node connects its children with sockets.
  const child = spawn(command[0]!, command.slice(1), { stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(child, "exit");
  cleanUp(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  let text = "";
  const read = () => {
    child.stderr.on("data", (chunk) => {
      text += chunk;
    });
  };
  return { read, text: () => text };
}

describeIfInstalled("spiped", "spipe")("a log that is not read", () => {
  it.each([
    ["pipe", "text", "1"],
    ["pipe", "json", "1"],
    ["socket", "text", "2"],
    ["socket", "json", "1"],
  ] as const)(
    "does not block the daemon, and reports the number of dropped lines: %s, %s, %s worker(s)",
    { timeout: 60_000 },
    async (kind, format, workers) => {
      const key = keyFile();
      const echo = await startEcho();
      const source = await freeAddress();
      const args = ["-F", "-d", "-s", source.text, "-t", echo.address.text, "-k", key, "-n", "0"];
      const more = ["--log-level", "info", "--log-format", format, "--workers", workers];
      const { read, text } = startUnread(kind, [...commandOf("ours", "spiped"), ...args, ...more]);
      await until(() => isListening(source));
      const talk = () => run([...commandOf("c", "spipe"), "-t", source.text, "-k", key], "hello");
      // Pipe, socket and memory buffers hold less than half of these lines.
      await makeLines(source, 8000);
      expect(String((await talk()).stdout)).toBe("hello");
      read();
      await until(() => /\d+ messages were dropped: the log was not read/.test(text()));
      await talk();
      await until(() => text().split(" were dropped")[1]!.includes("5 bytes decrypted"));
    },
  );
});

describe("the lines at the end of a program", () => {
  it("are not lost, even if there are more than a pipe holds", async () => {
    const config = join(temporaryDirectory(), "config.toml");
    // Longer than a pipe holds: the message repeats the name.
    writeFileSync(config, `"${"x".repeat(200_000)}" = 1\n`);
    const command = [...commandOf("ours", "spiped"), "-F", "--config", config];
    const { stdout } = await run(["bash", "-c", '"$@" 2>&1 | { sleep 0.3; cat; }', "-", ...command]);
    expect(stdout.length).toBeGreaterThan(200_000);
    expect(stdout.at(-1)).toBe(10);
  });
});
