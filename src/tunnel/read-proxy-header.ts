/** Reads a PROXY protocol header from an accepted socket, before anything else is read. */
import type { Socket } from "node:net";
import { HandshakeError } from "../protocol/errors.ts";
import { arrivalDeadline } from "./deadline.ts";
import { feed } from "./feed.ts";
import { type ProxiedConnection, parseProxyHeader } from "./proxy-protocol.ts";

/**
 * @param timeout ms.
 * @returns the client's connection, or undefined if the load balancer speaks for itself.
 * @throws ProxyHeaderError, HandshakeError when the header did not come; the socket is closed by then.
 */
export async function readProxyHeader(
  socket: Socket,
  timeout: number,
): Promise<ProxiedConnection | undefined> {
  let received = Buffer.alloc(0);
  const cancelDeadline = arrivalDeadline(timeout, () =>
    socket.destroy(
      new HandshakeError("ERR_SPIPED_HANDSHAKE_TIMEOUT", `no PROXY header within ${timeout / 1000} s`),
    ),
  );
  try {
    const { connection } = await feed(socket, (bytes) => {
      const before = received.length;
      received = Buffer.concat([received, bytes]);
      const result = parseProxyHeader(received);
      return { consumed: result === undefined ? bytes.length : result.length - before, result };
    });
    return connection;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    cancelDeadline();
  }
}
