/** Connected sockets, and the two ends of a session, within the test process. */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { Listener } from "../../src/net/listener.ts";
import { createNativeEngine } from "../../src/protocol/engine/native.ts";
import { ClientHandshake, ServerHandshake } from "../../src/protocol/handshake.ts";
import { Opener } from "../../src/protocol/opener.ts";
import { openedSize, sealedSize } from "../../src/protocol/packet.ts";
import { Sealer } from "../../src/protocol/sealer.ts";
import { Secret } from "../../src/protocol/secret.ts";
import { cleanUp, connectTo, freeAddress, until } from "./programs.ts";

/** How a connection ends, as its peer sees it: with EOF or with a reset. */
export type End = "end" | "reset";

/** The other end of a socket under test: an ordinary socket that records what it receives. */
export interface Peer {
  readonly socket: Socket;
  received(): Buffer;
  /** Resolves when no more data can arrive. */
  readonly ended: Promise<End>;
}

/** The kind of the socket under test: with a reader that can be attached, or as Node makes it. */
export type SocketKind = "direct" | "ordinary";

/** Connects two sockets. The accepted one is under test: paused, unread, and with `allowHalfOpen`. */
export async function socketPair(
  family: "IPv4" | "UNIX" = "IPv4",
  kind: SocketKind = "direct",
): Promise<{ socket: Socket; peer: Peer }> {
  const address = await freeAddress(family);
  const accepted: Socket[] = [];
  const accept = (socket: Socket) => void accepted.push(socket);
  if (kind === "direct") {
    const listener = new Listener(accept, () => {});
    const { connect } = address;
    await listener.listen(
      "path" in connect ? { kind: "unix", ...connect } : { kind: "tcp", family: 4, ...connect },
    );
    cleanUp(() => listener.close());
  } else {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, accept);
    await once(server.listen(address.connect), "listening");
    cleanUp(() => void server.close());
  }
  const peer = watch(await connectTo(address));
  await until(() => accepted.length > 0);
  const [socket] = accepted as [Socket];
  socket.on("error", () => {});
  cleanUp(() => void socket.destroy());
  return { socket, peer };
}

function watch(socket: Socket): Peer {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  const ended = new Promise<End>((resolve) => {
    socket.once("end", () => resolve("end"));
    socket.once("error", () => resolve("reset"));
  });
  return { socket, received: () => Buffer.concat(chunks), ended };
}

/** Returns the session keys of one side, and functions that encrypt and decrypt as the other side does. */
export function makeSession() {
  const secret = Secret.fromKeyFile(Buffer.from("a key for tests"));
  const client = new ClientHandshake(secret, { weak: true });
  const server = new ServerHandshake([secret], { weak: true });
  server.receive(Buffer.concat([client.nonce, client.receive(server.nonce).send!]));
  const response = server.respond();
  const { session } = client.receive(response.send);
  const engine = createNativeEngine();
  const sealer = new Sealer(engine, session!.seal);
  const opener = new Opener(engine, session!.open);
  return {
    engine,
    session: response.session,
    seal: (data: Uint8Array | string): Buffer => {
      const bytes = Buffer.from(data);
      const out = Buffer.alloc(sealedSize(bytes.length));
      return out.subarray(0, sealer.seal(bytes, out));
    },
    open: (packets: Uint8Array): Buffer => {
      const out = Buffer.alloc(openedSize(packets.length));
      return out.subarray(0, opener.open(packets, out));
    },
  };
}
