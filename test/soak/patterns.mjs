/** What the clients of a soak test do: each function opens one connection, and checks its data and its end. */
import { once } from "node:events";
import { connect } from "node:net";
import { count, fail, random, sleep, until } from "./report.mjs";
import {
  dataAt,
  GREETING,
  isDataAt,
  makeHeader,
  openSockets,
  readSlowly,
  sendData,
  served,
} from "./service.mjs";

const MIB = 1 << 20;
/** Time after which a connection that should have ended is a failure, in seconds, beyond its planned duration. */
const PATIENCE = 90;

let lastId = 0;

/** Returns the number of the last connection that was opened. */
export const lastConnection = () => lastId;

/** Connections that are open at the client, by number. */
export const openConnections = new Map();

/**
 * Follows a connection whose data starts at a random place: counts and compares what it receives. Works on sockets of
 * `node:net` and on those of the library.
 */
export function follow(socket, { pattern, pair, kind, length = 0, seconds = 0 }) {
  lastId += 1;
  const connection = {
    id: lastId,
    pair,
    pattern,
    socket,
    start: random(0, MIB - 1),
    isConnected: false,
    isEstablished: false,
    received: 0,
    answer: Buffer.alloc(0),
    ended: false,
    error: undefined,
  };
  const { id, start } = connection;
  openConnections.set(id, connection);
  count(`${pattern}: started`);
  count("connections");
  const deadline = setTimeout(
    () => {
      fail(`${pattern}: connection ${id} does not end`);
      socket.destroy();
    },
    (seconds + PATIENCE) * 1000,
  );
  socket.on("connect", () => {
    connection.isConnected = true;
  });
  socket.on("error", (error) => {
    connection.error = error;
  });
  socket.on("end", () => {
    connection.ended = true;
  });
  socket.on("data", (chunk) => {
    let data = chunk;
    if (!connection.isEstablished) {
      if (data[0] !== GREETING) fail(`${pattern}: connection ${id} begins with ${data[0]}`);
      connection.isEstablished = true;
      socket.emit("established");
      data = data.subarray(1);
    }
    if (kind === "U" || kind === "S") {
      connection.answer = Buffer.concat([connection.answer, data]);
      return;
    }
    if (!isDataAt(start, connection.received, data)) fail(`${pattern}: wrong data, connection ${id}`);
    connection.received += data.length;
    count("bytes received by clients", data.length);
  });
  connection.closed = new Promise((closed) => {
    socket.on("close", () => {
      clearTimeout(deadline);
      openConnections.delete(id);
      closed();
    });
  });
  socket.write(makeHeader(kind, id, start, length));
  return connection;
}

/** Opens a connection through a pair of daemons, once the pair accepts new connections. */
async function open(pair, options, port = pair.front) {
  while (pair.gate !== undefined) await pair.gate;
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  return follow(socket, { ...options, pair: pair.name });
}

/** Resolves when the service has responded, or the connection is closed. */
const established = ({ socket, isEstablished, closed }) =>
  isEstablished ? undefined : Promise.race([once(socket, "established").catch(() => {}), closed]);

/** Waits for the end of a connection that must be complete, after `bytes` of data. */
async function expectComplete(connection, bytes) {
  const { pattern, id, closed } = connection;
  await closed;
  const problem =
    connection.error?.code ??
    (connection.ended ? undefined : "no end") ??
    (connection.received === bytes ? undefined : `${connection.received} bytes of ${bytes}`);
  if (problem === undefined) count(`${pattern}: complete`);
  else fail(`${pattern}: connection ${id}: ${problem}`);
  return problem === undefined;
}

/** Waits until the service has seen the end of a connection. */
async function servedToTheEnd({ id, pattern }, received) {
  const isOver = await until(() => served.get(id)?.closed === true, PATIENCE);
  const { ended, received: bytes } = served.get(id) ?? {};
  if (!isOver || !ended || bytes !== received)
    fail(`${pattern}: connection ${id}: the service has ${bytes} bytes of ${received}, end: ${ended}`);
  served.delete(id);
}

const skewed = (power, most) => Math.floor(Math.random() ** power * most) + 1;

/** Sends data and half-closes; the service returns the number of bytes. */
async function send(pair, pattern, kind, length, seconds) {
  const connection = await open(pair, { pattern, kind, length, seconds });
  await sendData(connection.socket, connection.start, length);
  connection.socket.end();
  const isComplete = await expectComplete(connection, 0);
  if (!isComplete) return;
  if (connection.answer.length !== 4 || connection.answer.readUInt32BE() !== length)
    fail(`${pattern}: connection ${connection.id}: wrong answer`);
  await servedToTheEnd(connection, length);
}

/** Sends up to 32 MiB. */
export const upload = (pair) => send(pair, "upload", "U", skewed(2, 32 * MIB));

/** Sends up to 24 MiB to a service that reads slowly. */
export const slowService = (pair, { long }) =>
  send(pair, "slow service", "S", random(1, 3) * (long ? 8 * MIB : MIB), 60);

/** Receives up to 32 MiB, and sends data after the service has half-closed. */
async function receive(pair, pattern, length, { seconds, onOpen = () => {} } = {}) {
  const connection = await open(pair, { pattern, kind: "D", length, seconds });
  onOpen(connection.socket);
  await Promise.race([once(connection.socket, "end").catch(() => {}), connection.closed]);
  const trailer = random(1, 5000);
  connection.socket.end(Buffer.from(dataAt(connection.start, 0, trailer)));
  if (await expectComplete(connection, length)) await servedToTheEnd(connection, trailer);
}

export const download = (pair) => receive(pair, "download", skewed(2, 32 * MIB));

/** Receives up to 24 MiB slowly. */
export const slowReader = (pair, { long }) =>
  receive(pair, "slow reader", random(1, 3) * (long ? 8 * MIB : MIB), { seconds: 60, onOpen: readSlowly });

/** Echoes messages of up to 20,000 bytes. */
async function exchange(pair, pattern, { messages, pause, seconds }) {
  const connection = await open(pair, { pattern, kind: "E", seconds });
  const { socket, start } = connection;
  let position = 0;
  for (let i = 0; i < messages && !socket.destroyed; i += 1) {
    const size = skewed(3, 20_000);
    socket.write(Buffer.from(dataAt(start, position, size)));
    position += size;
    if (Math.random() < 0.5) await sleep(Math.random() * pause);
  }
  socket.end();
  if (await expectComplete(connection, position)) await servedToTheEnd(connection, position);
}

export const echo = (pair) => exchange(pair, "echo", { messages: random(1, 40), pause: 20, seconds: 10 });

/** A connection of up to 60 seconds with a few messages, as a terminal session has. */
export function session(pair, { longest }) {
  const seconds = longest * (0.3 + 0.7 * Math.random());
  return exchange(pair, "session", { messages: 40, pause: (seconds * 1000) / 10, seconds });
}

/** Echoes one byte and closes. */
export async function churn(pair, _options, pattern = "churn") {
  const connection = await open(pair, { pattern, kind: "E" });
  connection.socket.end(Buffer.from(dataAt(connection.start, 0, 1)));
  if (await expectComplete(connection, 1)) await servedToTheEnd(connection, 1);
}

/** Opens many connections at the same time. */
export async function burst(pair, { burstSize }) {
  count("bursts");
  await Promise.all(Array.from({ length: burstSize }, () => churn(pair, {}, "burst")));
}

/** Closes or resets the connection at a random moment. */
export async function abort(pair) {
  const connection = await open(pair, { pattern: "abort", kind: "E" });
  const { socket, start, closed } = connection;
  socket.write(Buffer.from(dataAt(start, 0, random(1, 300_000))));
  setTimeout(() => (Math.random() < 0.5 ? socket.resetAndDestroy() : socket.destroy()), Math.random() * 40);
  await closed;
  count("abort: closed by the client");
  const wasServed = await until(() => served.has(connection.id), 1);
  if (wasServed && !(await until(() => served.get(connection.id).closed, PATIENCE)))
    fail(`abort: the service's connection ${connection.id} does not end`);
  served.delete(connection.id);
}

/** The service resets the connection: an error must follow what was delivered, not an end. */
export async function serviceReset(pair) {
  const connection = await open(pair, { pattern: "service reset", kind: "R", length: random(0, 200_000) });
  await connection.closed;
  if (connection.error?.code === "ECONNRESET" && !connection.ended)
    count("service reset: reset at the client");
  else fail(`service reset: connection ${connection.id} ended with ${connection.error?.code ?? "no error"}`);
  served.delete(connection.id);
}

/** A relay between the daemons ends or resets a connection at a random byte, mostly inside a packet. */
export async function cut(pair, { relay, front }) {
  const plan = {
    direction: Math.random() < 0.5 ? "up" : "down",
    how: Math.random() < 0.5 ? "end" : "reset",
    bytes: random(1, 320 + 12 * 1060),
  };
  const isBetween = plan.bytes >= 320 && (plan.bytes - 320) % 1060 === 0;
  relay.plan = plan;
  const length = random(1, 60_000);
  const connection = await open(pair, { pattern: "cut", kind: "E" }, front);
  const { socket } = connection;
  socket.write(Buffer.from(dataAt(connection.start, 0, length)));
  socket.on("data", () => {
    if (connection.received === length) socket.end();
  });
  // libuv may report data and a reset that arrive together as an end; the write then fails.
  socket.once("end", () => {
    if (socket.writableEnded) return;
    connection.ended = false;
    socket.write(Buffer.alloc(0), (error) => {
      if (error) return;
      connection.ended = true;
      socket.end();
    });
  });
  await connection.closed;
  const atService = served.get(connection.id);
  if (!relay.hasCut) {
    if (connection.ended && connection.received === length) count("cut: complete before the cut");
    else fail(`cut: connection ${connection.id} broke before it was cut`);
  } else if (isBetween) {
    count("cut: between packets");
  } else if (plan.bytes < 320) {
    if (connection.isEstablished) fail(`cut: connection ${connection.id} is open after half a handshake`);
    count("cut: inside the handshake");
  } else {
    // The side that receives the partial packet must not take it for an end.
    const tookForEnd = plan.direction === "down" ? connection.ended : atService?.ended;
    if (tookForEnd) fail(`cut: connection ${connection.id} ended cleanly (${JSON.stringify(plan)})`);
    count(`cut: inside a packet, ${plan.how === "end" ? "ended" : "reset"}`);
    count("cut: inside a packet");
  }
  if (atService !== undefined && !(await until(() => atService.closed, PATIENCE)))
    fail(`cut: the service's connection ${connection.id} does not end`);
  served.delete(connection.id);
}

/** Connects to the target that is sometimes away. */
export async function intermittent(pair, { away }) {
  const { changes, isOpen } = away;
  const connection = await open(pair, { pattern: "intermittent", kind: "E" }, pair.awayFront);
  const size = random(1, 3000);
  connection.socket.end(Buffer.from(dataAt(connection.start, 0, size)));
  await connection.closed;
  const isComplete = connection.ended && connection.received === size;
  const isBroken = !connection.isEstablished;
  served.delete(connection.id);
  if (changes !== away.changes) count("intermittent: while the target changed");
  else if (isOpen && isComplete) count("intermittent: complete");
  else if (!isOpen && isBroken) count("intermittent: closed, target away");
  else
    fail(
      `intermittent: connection ${connection.id} to a target that is ${isOpen ? "there" : "away"}: ${connection.error?.code ?? "end"}, ${connection.received} bytes`,
    );
}

/** Resolves when the service has responded to a connection; false if it was closed instead. */
export async function isServed(connection) {
  await established(connection);
  return connection.isEstablished;
}

/** Returns the number of connections that the service has open. */
export const openAtService = () => openSockets.size;
