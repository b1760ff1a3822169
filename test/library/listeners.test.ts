/** Node warns of a leak at the eleventh listener for an event; correct use of the library must not cause it. */
import { getEventListeners } from "node:events";
import { expect, it } from "vitest";
import { connect, createServer, loadKey, type SpipedSocket } from "../../src/index.ts";
import { cleanUp, keyFile, until } from "../support/programs.ts";
import { serve } from "../support/servers.ts";

const MANY = 30;

/** Runs `action` and returns the warnings that Node emits during it. */
async function warningsOf(action: () => Promise<void>): Promise<string[]> {
  const warnings: string[] = [];
  const onWarning = ({ name, message }: Error) => void warnings.push(`${name}: ${message}`);
  process.on("warning", onWarning);
  try {
    await action();
    await new Promise((later) => setImmediate(later));
  } finally {
    process.off("warning", onWarning);
  }
  return warnings;
}

it("one signal for many connections causes no warning", async () => {
  const silent = await serve(() => {});
  const key = await loadKey(keyFile());
  const controller = new AbortController();
  const reason = new Error("enough");
  const warnings = await warningsOf(async () => {
    const options = { ...silent.address.connect, key, signal: controller.signal };
    const attempts = Promise.allSettled(Array.from({ length: MANY }, () => connect(options)));
    await until(() => silent.sockets.length === MANY);
    controller.abort(reason);
    expect(await attempts).toEqual(Array(MANY).fill({ status: "rejected", reason }));
  });
  expect(warnings).toEqual([]);
  const other = new AbortController();
  await expect(connect({ port: 1, key, signal: other.signal })).rejects.toThrow("ECONNREFUSED");
  for (const { signal } of [controller, other]) expect(getEventListeners(signal, "abort")).toEqual([]);
});

it("repeated calls of setTimeout() and close() cause no warning", async () => {
  const key = await loadKey(keyFile());
  const accepted: SpipedSocket[] = [];
  const server = createServer({ key }, (socket) => void accepted.push(socket));
  await server.listen({ host: "127.0.0.1", port: 0 });
  const { port } = server.address() as { port: number };
  const socket = await connect({ host: "127.0.0.1", port, key });
  cleanUp(() => void socket.destroy());
  await until(() => accepted.length === 1);
  let timeouts = 0;
  const onTimeout = () => {
    timeouts += 1;
  };
  const closed: Promise<void>[] = [];
  const warnings = await warningsOf(async () => {
    for (let i = 0; i < MANY; i += 1) {
      socket.setTimeout(50, onTimeout);
      socket.setTimeout(0, onTimeout);
      closed.push(server.close());
    }
    socket.setTimeout(1, onTimeout);
    await until(() => timeouts > 0);
    for (const other of [socket, ...accepted]) other.destroy();
    await Promise.all(closed);
  });
  expect(timeouts).toBe(1);
  expect(warnings).toEqual([]);
});
