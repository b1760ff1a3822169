/** Closing a socket so that its peer does not take it for EOF. */
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { isTcp, reset } from "../../../src/net/reset.ts";
import { type SocketKind, socketPair } from "../../support/pairs.ts";

describe.each<SocketKind>(["direct", "ordinary"])("a reset of a %s socket", (kind) => {
  it.each([
    ["IPv4", true, "reset"],
    ["UNIX", false, "end"],
  ] as const)("over %s: TCP is %s, and the peer sees %s", async (family, tcp, seen) => {
    const { socket, peer } = await socketPair(family, kind);
    expect(isTcp(socket)).toBe(tcp);
    const closed = once(socket, "close");
    reset(socket);
    expect(await peer.ended).toBe(seen);
    await closed;
  });

  it("closes the socket during its half-close as well", async () => {
    const { socket, peer } = await socketPair("IPv4", kind);
    socket.resume();
    const closed = once(socket, "close");
    socket.end();
    reset(socket);
    await closed;
    const peerClosed = new Promise((done) => peer.socket.once("close", done));
    peer.socket.write("x");
    await peerClosed;
  });

  it("of a closed socket does nothing", async () => {
    const { socket } = await socketPair("IPv4", kind);
    const closed = once(socket, "close");
    socket.destroy();
    await closed;
    expect(() => reset(socket)).not.toThrow();
  });
});
