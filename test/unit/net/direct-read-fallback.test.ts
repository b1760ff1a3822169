/** Direct reads use undocumented features of Node; without them, sockets are read as streams. */
import { connect, createServer, Socket, type SocketConstructorOpts } from "node:net";
import { expect, it, onTestFinished, vi } from "vitest";
import { cleanUp } from "../../support/programs.ts";

type DirectRead = typeof import("../../../src/net/direct-read.ts");

/** Accepts one connection, and sends `text` to it. */
async function acceptOne(text: string): Promise<Socket> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  const accepted = new Promise<Socket>((resolve) => void server.once("connection", resolve));
  await new Promise<void>((listening) => void server.listen(0, "127.0.0.1", listening));
  const client = connect(server.address() as { port: number }).end(text);
  const socket = await accepted;
  cleanUp(() => {
    client.destroy();
    socket.destroy();
    server.close();
  });
  return socket;
}

/** Reads a socket to its end through an attached reader. Returns the data, and whether `rewrapSocket()` returned it unchanged. */
async function readAttached({ rewrapSocket, attachReader }: DirectRead, accepted: Socket) {
  const socket = rewrapSocket(accepted);
  cleanUp(() => void socket.destroy());
  let data = "";
  attachReader(socket, (buffer, length) => {
    data += Buffer.from(buffer.subarray(0, length)).toString();
    return true;
  });
  const ended = new Promise((resolve) => void socket.once("end", resolve));
  socket.resume();
  await ended;
  return { isUnchanged: socket === accepted, data };
}
it("an accepted socket is wrapped again", async () => {
  const module = await import("../../../src/net/direct-read.ts");
  expect(await readAttached(module, await acceptOne("hello"))).toEqual({ isUnchanged: false, data: "hello" });
});

it("an accepted socket stays as it is if Node does not expose its handle", async () => {
  const module = await import("../../../src/net/direct-read.ts");
  const accepted = await acceptOne("hello");
  const withoutHandle = new Proxy(accepted, {
    get(target, name) {
      if (name === "_handle") return undefined;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  expect(await readAttached(module, withoutHandle)).toEqual({ isUnchanged: true, data: "hello" });
});

it("an accepted socket stays as it is if Node does not accept its handle", async () => {
  class SocketWithoutHandle extends Socket {
    constructor({ handle: _handle, ...options }: SocketConstructorOpts & { handle?: object } = {}) {
      super(options);
    }
  }
  vi.resetModules();
  vi.doMock("node:net", async (original) => ({ ...(await original<object>()), Socket: SocketWithoutHandle }));
  onTestFinished(() => {
    vi.doUnmock("node:net");
    vi.resetModules();
  });
  const module = await import("../../../src/net/direct-read.ts");
  expect(await readAttached(module, await acceptOne("hello"))).toEqual({ isUnchanged: true, data: "hello" });
});
