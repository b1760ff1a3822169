/** connect(), to servers in this process. */
import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { connect, createServer, loadKey, Secret } from "../../../src/index.ts";
import { freePort, keyFile, until } from "../../support/programs.ts";
import { serve } from "../../support/servers.ts";
import { warningsOf } from "../../support/warnings.ts";

/** More than the number of listeners at which Node warns of a leak. */
const MANY = 30;

describe("connect()", () => {
  const key = Secret.fromKeyFile(Buffer.from("a key for tests"));

  it("rejects with the system error as the cause", async () => {
    const port = await freePort();
    await expect(connect({ host: "127.0.0.1", port, key })).rejects.toMatchObject({
      code: "ERR_SPIPED_CONNECT",
      cause: { code: "ECONNREFUSED" },
    });
  });

  it("rejects after the timeout if the server sends nothing", async () => {
    const silent = await serve(() => {});
    await expect(connect({ ...silent.address.connect, key, timeout: 50 })).rejects.toMatchObject({
      code: "ERR_SPIPED_HANDSHAKE_TIMEOUT",
    });
    await until(() =>
      silent.sockets.every((socket) => socket.readableEnded || socket.destroyed || socket.resume().destroyed),
    );
  });

  it("rejects with the signal's reason when the signal aborts", async () => {
    const silent = await serve(() => {});
    const reason = new Error("changed my mind");
    const controller = new AbortController();
    const attempt = connect({ ...silent.address.connect, key, signal: controller.signal });
    await until(() => silent.sockets.length === 1);
    controller.abort(reason);
    await expect(attempt).rejects.toBe(reason);
    await expect(connect({ ...silent.address.connect, key, signal: controller.signal })).rejects.toBe(reason);
  });

  it.each([
    [{ port: 0 }, "port"],
    [{ port: 65_536 }, "port"],
    [{}, "port"],
    [{ port: 1, weak: true, requireForwardSecrecy: true }, "cannot be used together"],
    [{ host: "127.0.0.1", port: 1, localAddress: "nowhere" }, "nowhere"],
  ])("rejects the options %j", async (options, named) => {
    const error = await connect({ ...options, key }).catch((error) => error);
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toContain(named);
  });
});

describe("invalid options and addresses", () => {
  it.each([undefined, "a string", Buffer.from("a buffer"), {}])(
    "are rejected with a TypeError: %s as a key",
    async (key) => {
      const wrong = key as unknown as Secret;
      await expect(connect({ port: 1, key: wrong })).rejects.toThrow(TypeError);
      expect(() => createServer({ key: wrong })).toThrow(TypeError);
      expect(() => createServer({ keys: new Map() as unknown as [] })).toThrow(TypeError);
      expect(() => createServer({ keys: [{ name: "alice", secret: wrong }] })).toThrow(TypeError);
    },
  );

  it("are rejected: a server that skips Diffie-Hellman and requires it of its clients", () => {
    const key = Secret.fromKeyFile(Buffer.from("a key for tests"));
    expect(() => createServer({ key, weak: true, requireForwardSecrecy: true })).toThrow(
      new TypeError("weak and requireForwardSecrecy cannot be used together"),
    );
  });

  it("are rejected: a wrong timeout and a port that is not in an object", async () => {
    const key = Secret.fromKeyFile(Buffer.from("x"));
    for (const timeout of ["x", 0, -1, Number.NaN]) {
      await expect(connect({ port: 1, key, timeout: timeout as number })).rejects.toThrow("timeout must be");
    }
    await expect(createServer({ key }).listen(0 as unknown as { port: number })).rejects.toThrow("{ port }");
  });

  it("are reported with the address that was tried", async () => {
    const key = Secret.fromKeyFile(Buffer.from("x"));
    const port = await freePort();
    await expect(connect({ host: "127.0.0.1", port, key })).rejects.toThrow(`127.0.0.1:${port}`);
  });
});

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
