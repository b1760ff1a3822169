/** Both ends of a connection under test as a queue of bytes, with a limit on each wait. */
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** Limit on each wait, in ms, which `--timeout` sets. A program that is correct takes milliseconds. */
let limitMs = 10_000;
export const setLimit = (ms) => {
  limitMs = ms;
};

/** Returns the time at which a wait that begins now must have ended, in ms. */
export const deadline = () => performance.now() + limitMs;

/** A check that did not hold. */
export class Failure extends Error {}
/** A wait that did not end in time. */
export class Timeout extends Failure {}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits for a promise. */
export async function within(promise, what, ms = limitMs) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Timeout(`no ${what} within ${Number((ms / 1000).toFixed(1))} s`)),
      ms,
    );
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}

/** A socket, or the standard input and output of a process. */
export class Channel {
  /** True when the other side has ended its stream. */
  ended = false;
  /** True when nothing more can arrive: after an end, an error or a close. */
  over = false;
  /** The system's error, such as a reset. */
  error;
  #chunks = [];
  #size = 0;
  #wake = () => {};
  #readable;
  #writable;

  constructor(readable, writable = readable) {
    this.#readable = readable;
    this.#writable = writable;
    readable.on("data", (chunk) => {
      this.#chunks.push(chunk);
      this.#size += chunk.length;
      this.#wake();
    });
    readable.on("end", () => {
      this.ended = true;
      this.#finish();
    });
    for (const stream of new Set([readable, writable])) {
      stream.on("error", (error) => {
        this.error ??= error;
        if (stream === readable) this.#finish();
      });
    }
    readable.on("close", () => this.#finish());
  }

  #finish() {
    this.over = true;
    this.#wake();
  }

  /** Number of bytes that have arrived and were not read. */
  get size() {
    return this.#size;
  }

  /** True when both directions are closed. */
  get closed() {
    return this.#readable.closed && this.#writable.closed;
  }

  async #wait(what, ms) {
    await within(
      new Promise((wake) => {
        this.#wake = wake;
      }),
      what,
      ms,
    );
  }

  #take(size) {
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all.subarray(size)];
    this.#size = all.length - Math.min(size, all.length);
    return all.subarray(0, size);
  }

  /** Returns `size` bytes, or fewer if the stream is over before. */
  async read(size, what = `${size} bytes`) {
    while (this.#size < size && !this.over) await this.#wait(what);
    return this.#take(size);
  }

  /** Returns all bytes until the stream is over. */
  async readAll(what = "end of the stream") {
    const limit = deadline();
    while (!this.over) await this.#wait(what, Math.max(1, limit - performance.now()));
    return this.#take(this.#size);
  }

  write(bytes) {
    if (!this.#writable.destroyed) this.#writable.write(bytes);
  }

  /** Writes pieces, each by itself as far as the system lets them be. */
  async writePieces(pieces, pauseMs = 0) {
    for (const piece of pieces) {
      this.write(piece);
      await (pauseMs === 0 ? new Promise(setImmediate) : sleep(pauseMs));
    }
  }

  end() {
    this.#writable.end();
  }

  reset() {
    this.#readable.resetAndDestroy();
  }

  destroy() {
    this.#readable.destroy();
    this.#writable.destroy();
  }
}

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Connects to a port of 127.0.0.1. */
export async function connectTo(port) {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  const channel = new Channel(socket);
  const connected = new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("close", () => reject(new Failure(`cannot connect: ${channel.error?.message}`)));
  });
  await within(connected, "connection");
  return channel;
}

/** A listener whose connections are taken one by one. */
export class Listener {
  port;
  #waiting = [];
  #accepted = [];
  #server;

  async listen() {
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      const channel = new Channel(socket);
      this.#accepted.push(channel);
      this.#waiting.shift()?.();
    });
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = this.#server.address().port;
  }

  /** Number of connections that nobody has taken. */
  get count() {
    return this.#accepted.length;
  }

  /** Returns the next connection. */
  async next(what) {
    const limit = deadline();
    while (this.#accepted.length === 0) {
      const accepted = new Promise((wake) => this.#waiting.push(wake));
      await within(accepted, what, Math.max(1, limit - performance.now()));
    }
    return this.#accepted.shift();
  }

  /** Closes all connections that nobody has taken; returns their number. */
  clear() {
    const { length } = this.#accepted;
    for (const channel of this.#accepted.splice(0)) channel.destroy();
    return length;
  }

  close() {
    this.clear();
    this.#server.close();
  }
}
