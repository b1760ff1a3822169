/** Distinguishing EOF from a reset, with timing that the programs rarely produce. */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { confirmEof } from "../../../src/net/confirm-eof.ts";
import { socketPair } from "../../support/pairs.ts";
import { cleanUp, until } from "../../support/programs.ts";

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

describe.each(["direct", "ordinary"] as const)("a socket that has ended its own direction (%s)", (kind) => {
  /** Returns a socket whose peer reads no more; `end` is what the peer does after it has sent data. */
  async function withLastData(end: (peer: Socket, socket: Socket) => void) {
    const { socket, peer } = await socketPair("IPv4", kind);
    socket.end();
    await peer.ended;
    let size = 0;
    socket.on("data", (chunk) => {
      size += chunk.length;
    });
    let outcome = "nothing";
    socket.once("end", () =>
      confirmEof(socket, () => {
        outcome = "EOF";
      }),
    );
    socket.once("close", () => {
      if (outcome === "nothing") outcome = "closed";
    });
    // The socket is read in a later iteration of the event loop, when both are here.
    peer.socket.write("data");
    end(peer.socket, socket);
    socket.resume();
    await until(() => outcome !== "nothing");
    const { errored }: { errored: NodeJS.ErrnoException | null } = socket;
    return { size, outcome, code: errored?.code };
  }

  it("is not taken to have ended cleanly if data and a reset arrive together", async () => {
    const result = await withLastData((peer) => peer.resetAndDestroy());
    expect(result).toEqual({ size: 4, outcome: "closed", code: "ECONNRESET" });
  });

  it("ends in one way or the other if Node does not expose its descriptor", async () => {
    const { size, outcome } = await withLastData((peer, socket) => {
      Object.defineProperty((socket as unknown as { _handle: object })._handle, "fd", { value: undefined });
      peer.resetAndDestroy();
    });
    expect(size).toBe(4);
    // Node 24 reports the reset itself.
    expect(["EOF", "closed"]).toContain(outcome);
  });

  it("has ended cleanly if data and EOF arrive together", async () => {
    expect(await withLastData((peer) => peer.end())).toEqual({ size: 4, outcome: "EOF", code: undefined });
  });
});
