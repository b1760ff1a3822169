/** Servers and clients that tests use at the two ends of a tunnel. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import { cleanUp, connectTo, type Family, freeAddress, type TestAddress } from "./programs.ts";

/** A server in this process, and all sockets that it has accepted. */
export interface TestServer {
  readonly address: TestAddress;
  readonly server: Server;
  readonly sockets: Socket[];
}

/** Starts a server that calls `serveSocket` for each connection. */
export async function serve(
  serveSocket: (socket: Socket) => void,
  family: Family = "IPv4",
): Promise<TestServer> {
  const address = await freeAddress(family);
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    sockets.push(socket);
    serveSocket(socket);
  });
  server.listen(address.connect);
  await once(server, "listening");
  cleanUp(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((closed) => server.close(closed));
  });
  return { address, server, sockets };
}

/** Starts a server that echoes its input, and half-closes when its client has. */
export const startEcho = (family?: Family): Promise<TestServer> =>
  serve((socket) => socket.pipe(socket), family);

/** Returns an iterator that leaves the other direction open at the end, unlike `for await (... of stream)`. */
function chunksOf(stream: Readable): AsyncIterable<Buffer> {
  return stream.iterator({ destroyOnReturn: false });
}

/** Resolves with the SHA-256 and the length of all data of a stream. */
export async function digestOf(stream: Readable): Promise<{ sha256: string; length: number }> {
  const hash = createHash("sha256");
  let length = 0;
  for await (const chunk of chunksOf(stream)) {
    hash.update(chunk);
    length += chunk.length;
  }
  return { sha256: hash.digest("hex"), length };
}

/** Starts a server that reads to the end, responds with the SHA-256 of its input, and records the digests. */
export async function startDigester(family?: Family) {
  const digests: { sha256: string; length: number }[] = [];
  const started = await serve((socket) => {
    void digestOf(socket).then(
      (digest) => {
        digests.push(digest);
        socket.end(digest.sha256);
      },
      () => {},
    );
  }, family);
  return { ...started, digests };
}

/** A source of random bytes in chunks of random sizes, with their hash. */
export class RandomSource implements AsyncIterable<Buffer> {
  readonly #hash = createHash("sha256");
  #left: number;
  readonly #block = randomBytes(1 << 20);

  constructor(size: number) {
    this.#left = size;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    while (this.#left > 0) {
      const size = Math.min(this.#left, 1 + Math.floor(Math.random() ** 4 * 200_000));
      const start = Math.floor(Math.random() * (this.#block.length - size));
      const chunk = this.#block.subarray(start, start + size);
      this.#hash.update(chunk);
      this.#left -= size;
      yield chunk;
    }
  }

  /** Returns the SHA-256 of all chunks. Call it once, at the end. */
  digest(): string {
    return this.#hash.digest("hex");
  }
}

/** Writes a source to a socket with back-pressure, and half-closes. */
export async function send(socket: Writable, source: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of source) if (!socket.write(chunk)) await once(socket, "drain");
  socket.end();
}

/** Reads a socket to its end; rejects if it is reset. */
export async function readAll(socket: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of chunksOf(socket)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Sends data, half-closes, and returns everything received until the peer half-closes. */
export async function exchange(address: TestAddress, data: Uint8Array | string): Promise<Buffer> {
  const socket = await connectTo(address);
  socket.end(data);
  return readAll(socket);
}
