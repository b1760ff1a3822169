/** Reading the PROXY protocol header of an accepted connection. */
import { describe, expect, it } from "vitest";
import { proxyHeaderV2 } from "../../../src/net/proxy-protocol.ts";
import { readProxyHeader } from "../../../src/net/read-proxy-header.ts";
import { socketPair } from "../../support/pairs.ts";
import { readAll } from "../../support/servers.ts";

const CONNECTION = {
  source: { address: "192.0.2.1", port: 1000 },
  destination: { address: "192.0.2.2", port: 25 },
};
const V1 = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n";
const FOREVER = Number.POSITIVE_INFINITY;

describe("the header of a load balancer", () => {
  it.each([
    ["version 1", Buffer.from(V1)],
    ["version 2", proxyHeaderV2(CONNECTION)],
  ])("in %s is read in any pieces, and what follows stays unread", async (_version, header) => {
    for (const size of [1, 5, header.length + 4]) {
      const { socket, peer } = await socketPair();
      const reading = readProxyHeader(socket, FOREVER);
      const all = Buffer.concat([header, Buffer.from("data")]);
      for (let at = 0; at < all.length; at += size) {
        peer.socket.write(all.subarray(at, at + size));
        await new Promise(setImmediate);
      }
      peer.socket.end();
      expect(await reading).toEqual(CONNECTION);
      expect(String(await readAll(socket))).toBe("data");
    }
  });

  it("has no client if the connection is the load balancer's own", async () => {
    const { socket, peer } = await socketPair();
    peer.socket.write("PROXY UNKNOWN\r\n");
    expect(await readProxyHeader(socket, FOREVER)).toBeUndefined();
  });

  it.each([
    ["is something else", "GET / HTTP/1.1\r\n", "no PROXY protocol header"],
    ["is incomplete", `${V1.slice(0, 20)}\0`, "PROXY header: peer closed"],
  ])("that %s closes the connection", async (_what, sent, message) => {
    const { socket, peer } = await socketPair();
    peer.socket.end(sent);
    await expect(readProxyHeader(socket, FOREVER)).rejects.toThrow(message);
    expect(socket.destroyed).toBe(true);
  });

  it("that does not come in time closes the connection", async () => {
    const { socket } = await socketPair();
    await expect(readProxyHeader(socket, 50)).rejects.toThrow("PROXY header: timeout");
    expect(socket.destroyed).toBe(true);
  });
});
