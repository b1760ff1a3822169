/** createServer(), with clients of the library. */

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { connect, createServer, loadKey, Secret, type SpipedSocket } from "../../../src/index.ts";
import { listen, open } from "../../support/library.ts";
import { cleanUp, keyFile, until } from "../../support/programs.ts";
import { warningsOf } from "../../support/warnings.ts";

/** More than the number of listeners at which Node warns of a leak. */
const MANY = 30;

describe("createServer()", () => {
  it("rejects an expired key, and closes the connections that it opened before it expired", async () => {
    const secret = Secret.fromKeyFile(randomBytes(32));
    const key = { name: "alice", secret, expires: new Date(Date.now() + 1000) };
    const errors: unknown[] = [];
    const server = createServer({ keys: [key] }, (socket) =>
      socket.on("error", (error) => errors.push(error)),
    );
    const port = await listen(server);
    const first = await open({ host: "127.0.0.1", port, key: secret });
    first.on("error", () => {}).resume();
    await new Promise((closed) => first.once("close", closed));
    await until(() => errors.length === 1);
    expect(errors[0]).toMatchObject({ code: "ERR_SPIPED_KEY_EXPIRED", message: "key alice expired" });
    const refused = once(server, "refused");
    await expect(connect({ host: "127.0.0.1", port, key: secret })).rejects.toMatchObject({
      code: "ERR_SPIPED_HANDSHAKE_EOF",
    });
    expect((await refused)[0]).toMatchObject({ code: "ERR_SPIPED_KEY_EXPIRED" });
  });
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
