/** Distinguishing EOF from a reset, with timing that the programs rarely produce. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { expect, it } from "vitest";
import { confirmEof } from "../../../src/net/confirm-eof.ts";
import { cleanUp } from "../../support/programs.ts";

/** Returns an accepted socket whose peer has half-closed and does not read, so that writes to it stay pending. */
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

it("reports EOF if the socket is destroyed without an error before EOF is confirmed", async () => {
  const { socket } = await withPendingWrite();
  let ended = false;
  confirmEof(socket, () => {
    ended = true;
  });
  // Node does this when the other direction has ended as well.
  socket.destroy();
  await new Promise(setImmediate);
  expect(ended).toBe(true);
});

it("does not report EOF if the pending write fails", async () => {
  const { socket } = await withPendingWrite();
  let ended = false;
  confirmEof(socket, () => {
    ended = true;
  });
  socket.destroy(new Error("reset"));
  await new Promise(setImmediate);
  expect(ended).toBe(false);
});
