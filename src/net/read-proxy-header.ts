/** Reads a PROXY protocol header from an accepted socket, before anything else is read. */
import type { Socket } from "node:net";
import { type ProxiedConnection, ProxyHeaderError, parseProxyHeader } from "./proxy-protocol.ts";
import { feed } from "./read-until-parsed.ts";
import { arrivalDeadline } from "./timers.ts";

/**
 * @param timeout ms.
 * @returns the client's connection, or undefined if the load balancer speaks for itself.
 * @throws ProxyHeaderError, or what the socket was destroyed with; the socket is closed by then.
 */
export async function readProxyHeader(
  socket: Socket,
  timeout: number,
): Promise<ProxiedConnection | undefined> {
  let received = Buffer.alloc(0);
  const cancelDeadline = arrivalDeadline(timeout, () =>
    socket.destroy(new ProxyHeaderError("PROXY header: timeout")),
  );
  try {
    const step = (bytes: Buffer) => {
      const before = received.length;
      received = Buffer.concat([received, bytes]);
      const result = parseProxyHeader(received);
      return { consumed: result === undefined ? bytes.length : result.length - before, result };
    };
    const { connection } = await feed(socket, step, () => new ProxyHeaderError("PROXY header: peer closed"));
    return connection;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    cancelDeadline();
  }
}
