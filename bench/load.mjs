/**
 * The load: a process that is the service behind a pair of daemons, and one that is its client. Both read into one
 * static buffer and write one static block, so that they cost little; the stream's contents are compared with what they
 * must be, byte for byte.
 *
 * The client's first byte selects what the connection does:
 *
 *     E  echo            S  sink, answers with the number of bytes at the end
 *     D  source, of as many bytes as the next 8 say       P  a reader that does not read until `resume`
 */
import { once } from "node:events";
import { connect, createServer } from "node:net";

const BLOCK = 1 << 20;
const block = Buffer.alloc(BLOCK);
// Bytes of a simple generator: the same in both processes, and nowhere near periodic within a packet.
for (let i = 0, state = 1; i < BLOCK; i += 1) {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  block[i] = state >>> 16;
}

/** Reports changed or lost data, which ends the benchmark. */
function corrupt(message) {
  process.send({ corrupt: message }, () => process.exit(1));
}

/** Compares received bytes with the stream's contents from `position` on. */
function check(chunk, position) {
  for (let at = 0; at < chunk.length; ) {
    const start = (position + at) % BLOCK;
    const size = Math.min(chunk.length - at, BLOCK - start);
    if (block.compare(chunk, at, at + size, start, start + size) !== 0) {
      return corrupt(`the stream is corrupted near byte ${position + at}`);
    }
    at += size;
  }
}

/** Writes `size` bytes of the stream, with back-pressure. */
async function writeStream(socket, size) {
  for (let left = size; left > 0; left -= BLOCK) {
    const piece = left >= BLOCK ? block : block.subarray(0, left);
    if (!socket.write(piece)) await once(socket, "drain");
  }
}

/** Connects; `onBytes` gets what is received, in a buffer that is used again. */
function dial(port, onBytes) {
  const buffer = Buffer.allocUnsafeSlow(256 * 1024);
  const socket = connect({
    port,
    host: "127.0.0.1",
    allowHalfOpen: true,
    noDelay: true,
    onread: {
      buffer,
      callback: (length) => {
        onBytes(buffer.subarray(0, length));
        return true;
      },
    },
  });
  return once(socket, "connect").then(() => socket);
}

const stalled = [];

function serve(socket) {
  socket.setNoDelay(true);
  socket.on("error", () => {});
  socket.once("data", (first) => {
    const command = String.fromCharCode(first[0]);
    const rest = first.subarray(1);
    if (command === "E") {
      if (rest.length > 0) socket.write(rest);
      socket.pipe(socket);
    } else if (command === "S") {
      let count = 0;
      const take = (chunk) => {
        check(chunk, count);
        count += chunk.length;
      };
      take(rest);
      socket.on("data", take);
      socket.on("end", () => socket.end(String(count)));
    } else if (command === "D") {
      void writeStream(socket, Number(rest.readBigUInt64BE())).then(() => socket.end());
    } else if (command === "P") {
      socket.pause();
      stalled.push({ socket, rest });
    }
  });
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];

const operations = {
  /** Starts the service; returns its port. */
  async listen() {
    const server = createServer({ allowHalfOpen: true }, serve);
    server.listen(0, "127.0.0.1", 4096);
    await once(server, "listening");
    return server.address().port;
  },

  /** Lets the stalled readers read to their end; returns how many bytes they got. */
  async resume() {
    const counts = await Promise.all(
      stalled.splice(0).map(
        ({ socket, rest }) =>
          new Promise((resolve) => {
            let count = rest.length;
            socket.on("data", (chunk) => {
              count += chunk.length;
            });
            socket.on("end", () => {
              socket.end();
              resolve(count);
            });
            socket.resume();
          }),
      ),
    );
    return counts[0];
  },

  /** Sends `size` bytes; returns seconds until the service has confirmed them. */
  async up({ port, size, streams = 1 }) {
    const sockets = await Promise.all(
      Array.from({ length: streams }, async () => {
        let answer = "";
        const socket = await dial(port, (bytes) => {
          answer += bytes;
        });
        socket.write("S");
        return { socket, answer: () => answer };
      }),
    );
    const start = performance.now();
    await Promise.all(
      sockets.map(async ({ socket, answer }) => {
        await writeStream(socket, size);
        socket.end();
        await once(socket, "end");
        if (Number(answer()) !== size) corrupt(`${answer()} of ${size} bytes arrived`);
      }),
    );
    return (performance.now() - start) / 1000;
  },

  /** Receives `size` bytes; returns seconds. */
  async down({ port, size }) {
    let count = 0;
    const socket = await dial(port, (bytes) => {
      check(bytes, count);
      count += bytes.length;
    });
    const start = performance.now();
    const request = Buffer.alloc(9);
    request.write("D");
    request.writeBigUInt64BE(BigInt(size), 1);
    socket.write(request);
    await once(socket, "end");
    const seconds = (performance.now() - start) / 1000;
    socket.end();
    if (count !== size) corrupt(`${count} of ${size} bytes arrived`);
    return seconds;
  },

  /** Sends 64 bytes and waits for them, again and again; returns quantiles of the time, us. */
  async echo({ port, seconds }) {
    let received = 0;
    let wake = () => {};
    const socket = await dial(port, (bytes) => {
      received += bytes.length;
      wake();
    });
    const times = [];
    const message = Buffer.alloc(64, "x");
    socket.write("E");
    for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
      const start = performance.now();
      const expected = received + message.length;
      socket.write(message);
      while (received < expected) {
        await new Promise((resolve) => {
          wake = resolve;
        });
      }
      times.push((performance.now() - start) * 1000);
    }
    socket.destroy();
    times.sort((a, b) => a - b);
    return { p50: quantile(times, 0.5), p99: quantile(times, 0.99), count: times.length };
  },

  /** Times the first echo of a connection from its start, ms, and the mean of the next nine, us. */
  async first({ port }) {
    let received = 0;
    let wake = () => {};
    const message = Buffer.alloc(64, "x");
    const start = performance.now();
    const socket = await dial(port, (bytes) => {
      received += bytes.length;
      wake();
    });
    const closed = once(socket, "close").then(() => Promise.reject(new Error("closed without a response")));
    closed.catch(() => {});
    socket.on("error", () => {});
    const echoed = async (count) => {
      while (received < count * message.length) {
        const bytes = new Promise((resolve) => {
          wake = resolve;
        });
        await Promise.race([bytes, closed]);
      }
    };
    socket.write(Buffer.concat([Buffer.from("E"), message]));
    await echoed(1);
    const first = performance.now() - start;
    const next = performance.now();
    for (let count = 2; count <= 10; count += 1) {
      socket.write(message);
      await echoed(count);
    }
    const following = ((performance.now() - next) / 9) * 1000;
    socket.destroy();
    return { first, following };
  },

  /** Opens connections at once, each of which echoes one byte; returns how many were served and s until the last. */
  async burst({ port, count }) {
    const start = performance.now();
    const sockets = Array.from({ length: count }, () => connect({ port, host: "127.0.0.1", noDelay: true }));
    const deadline = setTimeout(() => sockets.forEach((socket) => socket.destroy()), 60_000);
    const outcomes = await Promise.all(
      sockets.map(
        (socket) =>
          new Promise((resolve) => {
            socket.on("error", () => {});
            socket.once("close", () => resolve(false));
            socket.once("data", () => resolve(true));
            socket.write("Ex");
          }),
      ),
    );
    const seconds = (performance.now() - start) / 1000;
    clearTimeout(deadline);
    for (const socket of sockets) socket.destroy();
    return { served: outcomes.filter(Boolean).length, seconds };
  },

  /** Connects, echoes one byte and closes, with 16 at a time; returns their number and the s. */
  async connections({ port, seconds }) {
    const end = performance.now() + seconds * 1000;
    let count = 0;
    const start = performance.now();
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        while (performance.now() < end) {
          let answer = () => {};
          const socket = await dial(port, () => answer());
          socket.on("error", () => {});
          const answered = new Promise((resolve, reject) => {
            answer = resolve;
            socket.once("close", () => reject(new Error("closed without a response")));
          });
          socket.write("Ex");
          await answered;
          socket.end();
          count += 1;
        }
      }),
    );
    return { count, seconds: (performance.now() - start) / 1000 };
  },

  /** Opens connections, each of which has echoed one byte, and keeps them. */
  async hold({ port, count }) {
    for (let opened = 0; opened < count; opened += 20) {
      await Promise.all(
        Array.from({ length: Math.min(20, count - opened) }, async () => {
          let answer = () => {};
          const socket = await dial(port, () => answer());
          held.push(socket);
          await new Promise((resolve, reject) => {
            answer = resolve;
            socket.once("close", () => reject(new Error("closed without a response")));
            socket.write("Ex");
          });
        }),
      );
    }
  },

  release() {
    for (const socket of held.splice(0)) socket.destroy();
  },

  /** Writes to a connection whose reader is stalled until nothing moves for a second. */
  async fill({ port }) {
    filling = await dial(port, () => {});
    filling.on("error", () => {});
    filling.write("P");
    filled = 0;
    for (let moving = true; moving; ) {
      const free = filling.write(block);
      filled += BLOCK;
      if (free) continue;
      const drained = new AbortController();
      moving = await Promise.race([
        once(filling, "drain", { signal: drained.signal }).then(() => true),
        new Promise((resolve) => setTimeout(resolve, 1000, false)),
      ]).catch(() => false);
      drained.abort();
    }
  },

  /** Ends that connection; returns how many bytes were written. */
  async finish() {
    filling.end();
    return filled;
  },
};
const held = [];
let filling;
let filled = 0;

process.on("message", async ({ id, operation, options }) => {
  try {
    process.send({ id, result: await operations[operation](options ?? {}) });
  } catch (error) {
    process.send({ id, error: error.message });
  }
});
process.on("disconnect", () => process.exit());
