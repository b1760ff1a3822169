/** Reads a PROXY protocol header from an accepted socket, before any other data. */
import type { Socket } from "node:net";
import { type ProxiedConnection, ProxyHeaderError, parseProxyHeader } from "./proxy-protocol.ts";
import { readUntilParsed } from "./read-until-parsed.ts";
import { startArrivalTimeout } from "./timers.ts";

/**
 * Reads the PROXY protocol header and leaves the data after it unread.
 *
 * @param timeout - in ms.
 * @returns the client's connection; undefined for the load balancer's own connection and if the original is not TCP.
 * @throws ProxyHeaderError, or the error that the socket was destroyed with. The socket is then closed.
 */
export async function readProxyHeader(
  socket: Socket,
  timeout: number,
): Promise<ProxiedConnection | undefined> {
  let received = Buffer.alloc(0);
  const cancelTimeout = startArrivalTimeout(timeout, () =>
    socket.destroy(new ProxyHeaderError("timeout", "PROXY header: timeout")),
  );
  try {
    const step = (bytes: Buffer) => {
      const before = received.length;
      received = Buffer.concat([received, bytes]);
      const result = parseProxyHeader(received);
      return { consumed: result === undefined ? bytes.length : result.length - before, result };
    };
    const { connection } = await readUntilParsed(
      socket,
      step,
      () => new ProxyHeaderError("peer closed", "PROXY header: peer closed"),
    );
    return connection;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    cancelTimeout();
  }
}
