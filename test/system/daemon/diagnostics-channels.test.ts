/** A subscriber to node:diagnostics_channel in a daemon, loaded with NODE_OPTIONS. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CHANNELS } from "../../../src/tunnel/diagnostics-channels.ts";
import {
  commandOf,
  connectTo,
  freeAddress,
  keyFile,
  start,
  startSpiped,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { exchange, startEcho } from "../../support/servers.ts";

type Message = Record<string, unknown>;

/** Returns an environment in which a daemon appends each message to a file, and a function that reads them. */
function recordMessages(): { env: NodeJS.ProcessEnv; messages: () => Message[] } {
  const directory = temporaryDirectory();
  const [subscriber, file] = [join(directory, "subscriber.cjs"), join(directory, "messages")];
  const names = Object.values(CHANNELS).map(({ name }) => name);
  writeFileSync(
    subscriber,
    `const { subscribe } = require("node:diagnostics_channel");
    const { appendFileSync } = require("node:fs");
    for (const name of ${JSON.stringify(names)})
      subscribe(name, (event) => appendFileSync(${JSON.stringify(file)}, JSON.stringify(event) + "\\n"));`,
  );
  return {
    env: { ...process.env, NODE_OPTIONS: `--require=${subscriber}` },
    messages: () =>
      existsSync(file)
        ? readFileSync(file, "utf8")
            .trim()
            .split("\n")
            .map((line) => JSON.parse(line))
        : [],
  };
}

/** Starts `spiped -d` in front of an echo server, and `spiped -e` with a subscriber in front of that. */
async function startClient(...options: string[]) {
  const key = keyFile();
  const echo = await startEcho();
  const [source, wire] = [await freeAddress(), await freeAddress()];
  const server = await startSpiped("ours", "-d", wire, echo.address, key);
  const { env, messages } = recordMessages();
  const args = ["-F", "-e", "-s", source.text, "-t", wire.text, "-k", key, ...options];
  const daemon = start([...commandOf("ours", "spiped"), ...args], { env });
  await untilListening(daemon, source);
  return { messages, source, server, daemon };
}

const types = (messages: Message[]) => messages.map(({ type }) => type);

describe("a daemon with a subscriber", () => {
  it.each([[[]], [["--workers", "2"]]])("publishes each step of a connection (%j)", async (options) => {
    const key = keyFile();
    const echo = await startEcho();
    const [plain, wire] = [await freeAddress(), await freeAddress()];
    const run = async (mode: string, source: typeof plain, target: string) => {
      const { env, messages } = recordMessages();
      const args = ["-F", mode, "-s", source.text, "-t", target, "-k", key, ...options];
      const daemon = start([...commandOf("ours", "spiped"), ...args], { env });
      await untilListening(daemon, source);
      return messages;
    };
    const server = await run("-d", wire, echo.address.text);
    const client = await run("-e", plain, wire.text);
    expect(String(await exchange(plain, "hello"))).toBe("hello");
    await until(() => [server, client].every((messages) => types(messages()).includes("closed")));

    // With workers, the primary grants each slot.
    const isImmediate = (type: unknown) => options.length === 0 || type !== "waiting";
    expect(types(server()).filter(isImmediate)).toEqual([
      "accepted",
      "authenticated",
      "connecting",
      "connected",
      "opened",
      "closed",
    ]);
    expect(types(client()).filter(isImmediate)).toEqual([
      "accepted",
      "connecting",
      "connected",
      "authenticated",
      "opened",
      "closed",
    ]);
    for (const [mode, messages] of [
      ["decrypt", server()],
      ["encrypt", client()],
    ] as const) {
      expect(messages.at(-1)).toMatchObject({
        mode,
        number: 1,
        reason: "closed",
        text: "closed",
        failed: false,
        opened: true,
        bytesEncrypted: 5,
        bytesDecrypted: 5,
      });
    }
  });

  it("publishes that a connection waits for a slot, and is closed when the daemon stops", async () => {
    const { messages, source, daemon } = await startClient("-n", "1");
    expect(String(await exchange(source, "hello"))).toBe("hello");
    const first = await connectTo(source);
    const event = (type: string, number: number) =>
      messages().find((message) => message.type === type && message.number === number);
    await until(() => event("opened", 2) !== undefined);
    await connectTo(source);
    await until(() => event("waiting", 3) !== undefined);
    daemon.child.kill("SIGTERM");
    await until(() => event("closed", 3) !== undefined);
    expect(event("closed", 3)).toMatchObject({ reason: "shutdown", failed: false, opened: false });
    first.end();
    first.resume();
    expect((await daemon.ended).status).toBe(0);
    expect(event("closed", 2)).toMatchObject({ reason: "closed" });
  });

  it("publishes why a connection failed, with what to check", async () => {
    const { messages, source, server } = await startClient();
    server.child.kill("SIGTERM");
    await server.ended;
    await connectTo(source);
    await until(() => types(messages()).includes("closed"));
    expect(types(messages())).toEqual(["accepted", "connecting", "closed"]);
    expect(messages().at(-1)).toMatchObject({
      reason: "target-refused",
      text: "target: refused",
      failed: true,
      opened: false,
      advice: "check that the target's service is running and listens on that address",
    });
  });
});
