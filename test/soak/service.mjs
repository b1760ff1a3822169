/** The service behind the daemons of a soak test, the data that it exchanges, and a relay that breaks connections. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { count, fail, random, sleep } from "./report.mjs";

const PERIOD = 1 << 20;
/** Repeated once, so that a piece of up to PERIOD bytes is contiguous wherever it starts. */
const block = randomBytes(PERIOD);
const twice = Buffer.concat([block, block]);

/** Returns up to PERIOD bytes of the data of a connection. Each connection has its own `start` in the block. */
export const dataAt = (start, position, size) => {
  const offset = (start + position) % PERIOD;
  return twice.subarray(offset, offset + size);
};

/** Returns true if the bytes are those of the data from `position` on. */
export function isDataAt(start, position, bytes) {
  for (let done = 0; done < bytes.length; done += PERIOD) {
    const piece = bytes.subarray(done, done + PERIOD);
    if (!piece.equals(dataAt(start, position + done, piece.length))) return false;
  }
  return true;
}

/** Size of the header that a client sends first: kind, number of the connection, start and length of the data. */
export const HEADER_BYTES = 16;
/** What the service sends as soon as it has the header. */
export const GREETING = 0x21;
/** Bytes that a slow reader reads at a time, and its pause, in ms: 1.3 MB per second. */
const SLOW_BYTES = 65_536;
const SLOW_PAUSE_MS = 50;

/** The service's view of each connection, by number: what the client cannot see. */
export const served = new Map();
/** Connections that are open at the service. */
export const openSockets = new Set();

export function makeHeader(kind, id, start, length) {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(kind, "latin1");
  header.writeUInt32BE(id, 4);
  header.writeUInt32BE(start, 8);
  header.writeUInt32BE(length, 12);
  return header;
}

/** Sends data from `start` on; ends early if the socket closes. */
export async function sendData(socket, start, length) {
  const closed = once(socket, "close").catch(() => {});
  for (let position = 0; position < length; ) {
    const size = Math.min(length - position, random(1, 300_000));
    if (!socket.write(dataAt(start, position, size)))
      await Promise.race([once(socket, "drain").catch(() => {}), closed]);
    if (socket.destroyed) return;
    position += size;
  }
}

/** Reads slowly: pauses the socket after each chunk. */
export function readSlowly(socket) {
  let budget = SLOW_BYTES;
  socket.on("data", (chunk) => {
    budget -= chunk.length;
    if (budget > 0) return;
    budget = SLOW_BYTES;
    socket.pause();
    setTimeout(() => socket.resume(), SLOW_PAUSE_MS);
  });
}

/**
 * Serves a connection. Kinds: `E` echoes; `U` reads to the end and returns the number of bytes; `S` does so slowly; `D`
 * sends `length` bytes, half-closes and reads to the end; `R` sends up to `length` bytes and resets the connection.
 */
function serve(socket) {
  openSockets.add(socket);
  socket.on("error", () => {});
  let header = Buffer.alloc(0);
  let connection;
  const start = () => {
    connection = {
      kind: String.fromCharCode(header[0]),
      id: header.readUInt32BE(4),
      start: header.readUInt32BE(8),
      length: header.readUInt32BE(12),
      received: 0,
      ended: false,
      closed: false,
    };
    served.set(connection.id, connection);
    socket.write(Buffer.of(GREETING));
    const { kind, length } = connection;
    if (kind === "S") readSlowly(socket);
    if (kind === "D") void sendData(socket, connection.start, length).then(() => socket.end());
    if (kind === "R") {
      socket.write(dataAt(connection.start, 0, length));
      setTimeout(() => socket.resetAndDestroy(), random(0, 30));
    }
  };
  socket.on("data", (chunk) => {
    if (connection === undefined) {
      header = Buffer.concat([header, chunk]);
      if (header.length < HEADER_BYTES) return;
      chunk = header.subarray(HEADER_BYTES);
      start();
    }
    if (!isDataAt(connection.start, connection.received, chunk))
      fail(`wrong data at the service, connection ${connection.id} (${connection.kind})`);
    connection.received += chunk.length;
    count("bytes received by the service", chunk.length);
    if (connection.kind === "E" && chunk.length > 0 && !socket.write(chunk)) {
      socket.pause();
      socket.once("drain", () => socket.resume());
    }
  });
  socket.on("end", () => {
    if (connection === undefined) {
      socket.end();
      return;
    }
    connection.ended = true;
    if (connection.kind === "U" || connection.kind === "S") {
      const answer = Buffer.alloc(4);
      answer.writeUInt32BE(connection.received);
      socket.end(answer);
    } else if (connection.kind === "E") {
      socket.end();
    }
  });
  socket.on("close", () => {
    openSockets.delete(socket);
    if (connection !== undefined) connection.closed = true;
  });
}

/** Starts the service. */
export async function startService(port = 0) {
  const server = createServer({ allowHalfOpen: true }, serve).listen(port, "127.0.0.1", 4096);
  await once(server, "listening");
  return server;
}

/** Forwards connections to `target` and breaks each one where `plan` says. */
export class Relay {
  /** The next connection's `direction` (`up` from the client, or `down`), `bytes` to forward, and `how` it is broken. */
  plan;
  /** Set to true when the connection was broken. */
  hasCut = false;
  #target;

  constructor(target) {
    this.#target = target;
  }

  async listen() {
    const server = createServer({ allowHalfOpen: true }, (client) => this.#forward(client));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return server.address().port;
  }

  #forward(client) {
    const plan = this.plan;
    this.hasCut = false;
    const server = connect({ port: this.#target, host: "127.0.0.1", allowHalfOpen: true });
    const pairs = [
      { from: client, to: server, left: plan.direction === "up" ? plan.bytes : Number.POSITIVE_INFINITY },
      { from: server, to: client, left: plan.direction === "down" ? plan.bytes : Number.POSITIVE_INFINITY },
    ];
    for (const pair of pairs) {
      const { from, to } = pair;
      from.on("error", () => {});
      from.on("close", (hadError) => {
        if (hadError) to.resetAndDestroy();
        else to.end();
        // Nothing drains any more.
        to.resume();
      });
      from.on("end", () => to.end());
      from.on("data", (chunk) => {
        if (pair.left <= 0) return;
        const piece = chunk.subarray(0, pair.left);
        pair.left -= piece.length;
        if (pair.left > 0) {
          if (!to.write(piece)) {
            from.pause();
            to.once("drain", () => from.resume());
          }
          return;
        }
        this.hasCut = true;
        if (plan.how === "end") {
          to.end(piece);
        } else {
          // Time for the receiver to read the bytes, which a reset would otherwise discard.
          to.write(piece, () => void sleep(5).then(() => [from, to].forEach((end) => end.resetAndDestroy())));
        }
      });
    }
  }
}
