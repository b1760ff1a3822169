/** Accepting connections, up to the last one in the queue. */
import { existsSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { describe, expect, it, vi } from "vitest";
import type { ResolvedAddress } from "../../../src/net/address.ts";
import { BoundSocket } from "../../../src/net/bound-socket.ts";
import { Listener } from "../../../src/net/listener.ts";
import { cleanUp, connectTo, freeAddress, type TestAddress, until } from "../../support/programs.ts";
import { readAll } from "../../support/servers.ts";

const resolved = ({ connect }: TestAddress): ResolvedAddress =>
  "path" in connect ? { kind: "unix", path: connect.path } : { kind: "tcp", family: 4, ...connect };

function makeListener() {
  const accepted: Socket[] = [];
  const listener = new Listener(
    (socket) => {
      socket.on("error", () => {});
      accepted.push(socket);
    },
    () => {},
  );
  cleanUp(() => {
    listener.close();
    for (const socket of accepted) socket.destroy();
  });
  return { listener, accepted };
}

describe.each(["IPv4", "UNIX"] as const)("a listener over %s", (family) => {
  it("accepts sockets that are unread until they are resumed, and half-open", async () => {
    const { listener, accepted } = makeListener();
    const address = await freeAddress(family);
    await listener.listen(resolved(address));
    const client = await connectTo(address);
    client.end("question");
    await until(() => accepted.length === 1);
    const [socket] = accepted as [Socket];
    await new Promise(setImmediate);
    expect({ read: socket.bytesRead, paused: socket.isPaused() }).toEqual({ read: 0, paused: true });
    expect(String(await readAll(socket))).toBe("question");
    socket.end("answer");
    expect(String(await readAll(client))).toBe("answer");
  });

  it("drains: accepts all who have connected, and then nobody", async () => {
    const { listener, accepted } = makeListener();
    const address = await freeAddress(family);
    await listener.listen(resolved(address));
    const clients = Array.from({ length: 50 }, () => connect(address.connect));
    const errors: Error[] = [];
    for (const client of clients) client.on("error", (error) => errors.push(error));
    cleanUp(() => {
      for (const client of clients) client.destroy();
    });
    // Connected by the kernel, but not accepted yet.
    await new Promise<void>((resolve) => process.nextTick(resolve));
    expect(accepted).toHaveLength(0);
    // Without time passing: the queue is empty, and the limit of a second does not matter.
    vi.useFakeTimers({ toFake: ["performance"] });
    cleanUp(() => void vi.useRealTimers());
    await listener.drain();
    await until(() => accepted.length === 50);
    expect(errors).toEqual([]);
    await expect(connectTo(address)).rejects.toThrow(/ECONNREFUSED|ENOENT/);
  });

  it("drains: accepts a client that connects while other work delays the close", async () => {
    const { listener, accepted } = makeListener();
    const address = await freeAddress(family);
    await listener.listen(resolved(address));
    // The iteration in which `drain` finds that no client was accepted: this runs after the poll, before the close.
    setImmediate(() =>
      setImmediate(() => {
        const start = performance.now();
        while (performance.now() - start < 1);
        const client = connect(address.connect).on("error", () => {});
        cleanUp(() => void client.destroy());
      }),
    );
    await listener.drain();
    expect(accepted).toHaveLength(1);
  });

  it("rejects an address that is in use", async () => {
    const [one, other] = [makeListener(), makeListener()];
    const address = await freeAddress(family);
    await one.listener.listen(resolved(address));
    await expect(other.listener.listen(resolved(address))).rejects.toMatchObject({ code: "EADDRINUSE" });
    const before = one.accepted.length;
    await connectTo(address);
    await until(() => one.accepted.length > before);
  });

  it("accepts on a socket that was bound before, without listening until then", async () => {
    const { listener, accepted } = makeListener();
    const address = await freeAddress(family);
    const bound = await BoundSocket.bind(resolved(address));
    await expect(connectTo(address)).rejects.toThrow("ECONNREFUSED");
    await listener.listenOn(bound.handle);
    await connectTo(address);
    await until(() => accepted.length === 1);
    bound.removeFile();
    if (family === "UNIX") expect(existsSync(address.text)).toBe(false);
  });
});

it("a listener on port 0 has the port that the kernel chose", async () => {
  const { listener, accepted } = makeListener();
  await listener.listen({ kind: "tcp", host: "127.0.0.1", port: 0, family: 4 });
  const { port } = listener.address() as { port: number };
  await connectTo({ text: "", connect: { host: "127.0.0.1", port } });
  await until(() => accepted.length === 1);
});

it("an address on which another listens can't be bound", async () => {
  const { listener } = makeListener();
  const address = resolved(await freeAddress());
  await listener.listen(address);
  await expect(BoundSocket.bind(address)).rejects.toMatchObject({ code: "EADDRINUSE", syscall: "bind" });
  listener.close();
  (await BoundSocket.bind(address)).close();
});
