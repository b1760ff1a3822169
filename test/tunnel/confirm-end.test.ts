/** Telling an end from a reset, at moments that programs rarely hit. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { expect, it } from "vitest";
import { confirmEnd } from "../../src/net/confirm-end.ts";
import { cleanUp } from "../support/programs.ts";

/** An accepted socket whose peer has half-closed and does not read, so that what is written to it waits. */
async function withPendingWrite(): Promise<{ socket: Socket; peer: Socket }> {
  const server = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const peer = connect({ port, host: "127.0.0.1", allowHalfOpen: true }).pause();
  const [socket] = (await once(server, "connection")) as [Socket];
  for (const each of [socket, peer]) each.on("error", () => {});
  cleanUp(async () => {
    for (const each of [socket, peer]) each.destroy();
    await new Promise((closed) => server.close(closed));
  });
  while (socket.write(Buffer.alloc(1 << 20)));
  socket.resume();
  peer.end();
  await once(socket, "end");
  return { socket, peer };
}

it("takes an end for one although the socket closes in order before that is certain", async () => {
  const { socket } = await withPendingWrite();
  let ended = false;
  confirmEnd(socket, () => {
    ended = true;
  });
  // As Node does when the other direction has ended, too.
  socket.destroy();
  await new Promise(setImmediate);
  expect(ended).toBe(true);
});

it("takes no end for one if the pending write fails", async () => {
  const { socket } = await withPendingWrite();
  let ended = false;
  confirmEnd(socket, () => {
    ended = true;
  });
  socket.destroy(new Error("reset"));
  await new Promise(setImmediate);
  expect(ended).toBe(false);
});
