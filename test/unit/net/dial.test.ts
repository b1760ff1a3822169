/** Connecting to the first of several addresses that works. */
import { once } from "node:events";
import { Socket } from "node:net";
import { describe, expect, it, vi } from "vitest";
import type { ResolvedAddress } from "../../../src/net/address.ts";
import { type DialOptions, dial } from "../../../src/net/dial.ts";
import { cleanUp, freeAddress, freePort, until } from "../../support/programs.ts";
import { readAll, serve, type TestServer } from "../../support/servers.ts";

/** An address to which a connection is never established. */
const SILENT: ResolvedAddress = { kind: "tcp", host: "192.0.2.1", port: 1, family: 4 };
const silent = vi.hoisted(() => [] as Socket[]);
vi.mock("../../../src/net/direct-read.ts", async (importOriginal) => {
  const original = await importOriginal<typeof import("../../../src/net/direct-read.ts")>();
  return {
    ...original,
    connectDirect(options: { host?: string }) {
      if (options.host !== "192.0.2.1") return original.connectDirect(options as never);
      const socket = new Socket();
      silent.push(socket);
      return socket;
    },
  };
});

const tcp = (port: number): ResolvedAddress => ({ kind: "tcp", host: "127.0.0.1", port, family: 4 });
const addressOf = ({ address: { connect } }: TestServer): ResolvedAddress =>
  "path" in connect ? { kind: "unix", path: connect.path } : tcp(connect.port);

async function connect(options: DialOptions) {
  const socket = await dial(options);
  socket.on("error", () => {});
  cleanUp(() => void socket.destroy());
  return socket;
}

const FOREVER = Number.POSITIVE_INFINITY;

describe("dial()", () => {
  it("tries the addresses in order and reports each failure", async () => {
    const [first, second] = [await serve(() => {}), await serve(() => {})];
    const [refused, missing] = [tcp(await freePort()), await freeAddress("UNIX")];
    const unix: ResolvedAddress = { kind: "unix", path: missing.text };
    const events: unknown[] = [];
    const socket = await connect({
      addresses: [refused, unix, addressOf(first), addressOf(second)],
      timeout: FOREVER,
      onAttempt: (address) => events.push(address),
      onAttemptFailed: (address, { code }) => events.push([address, code]),
    });
    expect(events).toEqual([refused, [refused, "ECONNREFUSED"], unix, [unix, "ENOENT"], addressOf(first)]);
    await until(() => first.sockets.length === 1);
    expect(socket.remotePort).toBe((addressOf(first) as { port: number }).port);
    expect(second.sockets).toEqual([]);
  });

  it.each(["IPv4", "UNIX"] as const)(
    "returns an unread socket over %s, which stays open after the peer's end",
    async (family) => {
      const server = await serve((socket) => socket.end("greeting"), family);
      const socket = await connect({ addresses: [addressOf(server)], timeout: 10_000 });
      expect(socket.isPaused()).toBe(true);
      expect(String(await readAll(socket))).toBe("greeting");
      expect(socket.writable).toBe(true);
    },
  );

  it("rejects with the last error if no address works", async () => {
    const [one, other] = [tcp(await freePort()), await freeAddress("UNIX")];
    await expect(
      dial({ addresses: [one, { kind: "unix", path: other.text }], timeout: FOREVER }),
    ).rejects.toMatchObject({
      name: "ConnectError",
      code: "ERR_SPIPED_CONNECT",
      message: expect.stringMatching(/^could not connect: connect ENOENT /),
      cause: { code: "ENOENT" },
    });
  });

  it("rejects if there is no address", async () => {
    await expect(dial({ addresses: [], timeout: FOREVER })).rejects.toThrow("could not connect: no address");
  });

  it("has one timeout for all attempts, and closes the socket then", async () => {
    silent.length = 0;
    await expect(dial({ addresses: [tcp(await freePort()), SILENT], timeout: 50 })).rejects.toMatchObject({
      code: "ERR_SPIPED_CONNECT_TIMEOUT",
      message: "no connection within 0.05 s",
    });
    expect(silent.map(({ destroyed }) => destroyed)).toEqual([true]);
  });

  it("rejects with the signal's reason when that aborts, and closes the socket", async () => {
    silent.length = 0;
    const controller = new AbortController();
    const reason = new Error("changed my mind");
    const attempt = dial({ addresses: [SILENT], timeout: FOREVER, signal: controller.signal });
    expect(silent).toHaveLength(1);
    controller.abort(reason);
    await expect(attempt).rejects.toBe(reason);
    expect(silent[0]!.destroyed).toBe(true);
    const onAttempt = vi.fn();
    const { signal } = controller;
    await expect(dial({ addresses: [SILENT], timeout: FOREVER, signal, onAttempt })).rejects.toBe(reason);
    expect(onAttempt).not.toHaveBeenCalled();
  });

  it("leaves a connected socket open when the signal aborts or the timeout passes", async () => {
    const server = await serve((socket) => void socket.pipe(socket));
    const controller = new AbortController();
    const { signal } = controller;
    const socket = await connect({ addresses: [addressOf(server)], timeout: 200, signal });
    controller.abort();
    // Longer than the timeout.
    await new Promise((later) => setTimeout(later, 250));
    socket.end("still open");
    expect(String(await readAll(socket))).toBe("still open");
  });

  it("leaves the failure of a connected socket to its owner", async () => {
    const [first, second] = [await serve(() => {}), await serve(() => {})];
    const onAttemptFailed = vi.fn();
    const addresses = [addressOf(first), addressOf(second)];
    const socket = await connect({ addresses, timeout: FOREVER, onAttemptFailed });
    const closed = new Promise((done) => socket.resume().once("close", done));
    await until(() => first.sockets.length === 1);
    first.sockets[0]!.resetAndDestroy();
    await closed;
    expect(socket.errored).toMatchObject({ code: "ECONNRESET" });
    expect(onAttemptFailed).not.toHaveBeenCalled();
  });

  it("connects from a given address, unless the target is a UNIX socket", async () => {
    const bind: ResolvedAddress = { kind: "tcp", host: "127.0.0.9", port: 0, family: 4 };
    for (const family of ["IPv4", "UNIX"] as const) {
      const server = await serve(() => {}, family);
      const socket = await connect({ addresses: [addressOf(server)], timeout: FOREVER, bind });
      if (family === "UNIX") continue;
      await until(() => server.sockets.length === 1);
      expect(server.sockets[0]!.remoteAddress).toBe("127.0.0.9");
      const closed = once(socket, "close");
      socket.destroy();
      await closed;
    }
  });
});
