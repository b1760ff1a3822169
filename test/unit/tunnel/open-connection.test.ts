/** Opening an encrypted connection, to a server in this process that does only what the test says. */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { HANDSHAKE_SIZE, ServerHandshake } from "../../../src/protocol/handshake.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import { connectAndHandshake } from "../../../src/tunnel/open-connection.ts";
import { cleanUp, freeAddress, until } from "../../support/programs.ts";

const secret = Secret.fromKeyFile(Buffer.from("a key for tests"));

/** Starts a server that answers the client's proof with what `respond` makes of the right answer. */
async function startServer(respond: (answer: Buffer) => Buffer): Promise<{
  connect: { host: string; port: number };
  /** What the server has received, and how that ended. */
  readonly connection: { received: number; end: "end" | "error" | undefined };
}> {
  const address = await freeAddress("IPv4");
  const connection: { received: number; end: "end" | "error" | undefined } = { received: 0, end: undefined };
  const serve = (socket: Socket) => {
    const handshake = new ServerHandshake([secret], { weak: true });
    socket.write(handshake.nonce);
    socket.on("data", (bytes) => {
      connection.received += bytes.length;
      const { verified } = handshake.receive(bytes);
      if (verified !== undefined) socket.write(respond(Buffer.from(handshake.respond().send)));
    });
    socket.on("end", () => {
      connection.end ??= "end";
    });
    socket.on("error", () => {
      connection.end ??= "error";
    });
  };
  const server = createServer({ allowHalfOpen: true }, serve);
  await once(server.listen(address.connect), "listening");
  cleanUp(() => void server.close());
  return { connect: address.connect as { host: string; port: number }, connection };
}

describe("a handshake that fails after the client has sent its proof", () => {
  /** The server may have opened its side: with an EOF, its target would see the end of an empty stream. */
  const open = ({ host, port }: { host: string; port: number }, signal?: AbortSignal) =>
    connectAndHandshake({
      addresses: [{ kind: "tcp", host, port, family: 4 }],
      timeout: 100,
      secret,
      weak: true,
      signal,
    });

  it("resets the connection after a timeout", async () => {
    const { connect, connection } = await startServer(() => Buffer.alloc(0));
    await expect(open(connect)).rejects.toMatchObject({
      code: "ERR_SPIPED_HANDSHAKE_TIMEOUT",
      awaiting: "proof",
    });
    await until(() => connection.end !== undefined);
    expect(connection).toEqual({ received: HANDSHAKE_SIZE, end: "error" });
  });

  it("resets the connection if it is aborted", async () => {
    const { connect, connection } = await startServer(() => Buffer.alloc(0));
    const controller = new AbortController();
    const reason = new Error("changed my mind");
    const opening = open(connect, controller.signal);
    void until(() => connection.received === HANDSHAKE_SIZE).then(() => controller.abort(reason));
    await expect(opening).rejects.toBe(reason);
    await until(() => connection.end !== undefined);
    expect(connection.end).toBe("error");
  });

  it("resets the connection if the answer is wrong", async () => {
    const { connect, connection } = await startServer((answer) => Buffer.alloc(answer.length, 1));
    await expect(open(connect)).rejects.toMatchObject({ name: "HandshakeError" });
    await until(() => connection.end !== undefined);
    expect(connection.end).toBe("error");
  });
});
