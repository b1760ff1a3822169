/**
 * Warms up the process before it accepts connections: without this, the first connection takes several times as long as
 * later ones, since its code is interpreted, and the first messages too.
 *
 * Two servers within the process, one of each mode, carry connections with a random key over sockets in memory. They
 * are the real ones, so that what is compiled is what connections use; but nothing is logged, counted or published.
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { ignoreErrors } from "../net/ignore-errors.ts";
import { memorySocketPair } from "../net/memory-socket.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import { Secret } from "../protocol/secret.ts";
import { Admission } from "../tunnel/admission.ts";
import { ConnectionLimit } from "../tunnel/connection-limit.ts";
import { ExponentPool } from "../tunnel/exponent-pool.ts";
import { Keyring } from "./keyring.ts";
import { Target } from "./target.ts";
import { Targets } from "./targets.ts";
import { TunnelServer } from "./tunnel-server.ts";

/** Time of the warm-up, in ms: on a busy machine, processor time, which other threads of the process use too. */
const WARM_UP_MS = 50;
/** Maximum time of the warm-up, in ms. */
const MAX_TIME_MS = 200;
/** Sizes of the messages of a connection, in bytes, each of which is echoed. */
const MESSAGE_SIZES: readonly number[] = [...Array<number>(200).fill(64), 1024, 4096, 16_384, 65_536];

/**
 * Runs the warm-up. A failure ends it early.
 *
 * @param warn - called with an exception that nothing caught: it would have ended the process at another time.
 */
export async function warmUp(engine: Engine, warn: (message: string) => void): Promise<void> {
  const start = performance.now();
  const cpuStart = process.cpuUsage();
  let isOver = false;
  const shouldContinue = () => {
    if (isOver) return false;
    if (performance.now() - start < WARM_UP_MS) return true;
    const { user, system } = process.cpuUsage(cpuStart);
    return user + system < WARM_UP_MS * 1000;
  };
  const secret = Secret.fromKeyFile(randomBytes(32));
  const sockets: Socket[] = [];
  const pair = () => {
    const created = memorySocketPair();
    sockets.push(...created);
    for (const socket of created) ignoreErrors(socket);
    return created;
  };
  const makeServer = (mode: "encrypt" | "decrypt", accept: (socket: Socket) => void) =>
    new TunnelServer({
      source: "tcp",
      mode,
      targets: localTargets(),
      keyring: new Keyring([{ secret }]),
      connectionLimit: new ConnectionLimit(Number.POSITIVE_INFINITY, () => {}),
      timeout: MAX_TIME_MS,
      idleTimeout: Number.POSITIVE_INFINITY,
      keepAlive: true,
      admission: new Admission({ onShortage: () => {} }),
      exponents: new ExponentPool(),
      engine,
      isInternal: true,
      openSocket: () => {
        const [near, far] = pair();
        accept(far);
        setImmediate(() => near.emit("connect"));
        return near;
      },
    });
  const servers: TunnelServer[] = [];
  const stopCatching = catchExceptions((error) => {
    isOver = true;
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    warn(`exception during the warm-up: ${text.replace(/\s*\n\s*/g, " ")}; continuing without a warm-up`);
  });
  try {
    const decrypting = makeServer("decrypt", (socket) => socket.pipe(socket));
    servers.push(decrypting);
    const encrypting = makeServer("encrypt", (socket) => decrypting.accept(socket));
    servers.push(encrypting);
    const connect = () => {
      const [near, far] = pair();
      encrypting.accept(far);
      return near;
    };
    const exchange = async () => {
      while (shouldContinue()) await exchangeMessages(connect(), shouldContinue);
    };
    await withTimeout(exchange(), MAX_TIME_MS);
  } catch {
    // What is not compiled yet is compiled when it is used.
  } finally {
    isOver = true;
    for (const socket of sockets) socket.destroy();
    await withTimeout(Promise.all(servers.map((server) => server.drain())), MAX_TIME_MS);
    secret.destroy();
    // What the closed sockets have scheduled may fail too.
    await new Promise((scheduled) => setImmediate(scheduled));
    stopCatching();
  }
}

/**
 * Calls `onException` for exceptions that nothing catches, which would end the process: a version of Node may expect
 * something else of the sockets in memory.
 *
 * @returns a function that ends this.
 */
function catchExceptions(onException: (error: unknown) => void): () => void {
  if (process.hasUncaughtExceptionCaptureCallback()) return () => {};
  process.setUncaughtExceptionCaptureCallback(onException);
  return () => process.setUncaughtExceptionCaptureCallback(null);
}

function localTargets(): Targets {
  const address = { kind: "ip", host: "127.0.0.1", port: 1, family: 4, text: "[127.0.0.1]:1" } as const;
  return new Targets([new Target(address, [{ ...address, kind: "tcp" }], () => {})]);
}

/** Sends messages, each when the echo of the one before has arrived, while `shouldContinue`; then ends the connection. */
function exchangeMessages(socket: Socket, shouldContinue: () => boolean): Promise<void> {
  const sizes = MESSAGE_SIZES.values();
  let awaited = 0;
  const sendNext = () => {
    const size = shouldContinue() ? sizes.next().value : undefined;
    awaited = size ?? 0;
    if (size === undefined) socket.end();
    else socket.write(Buffer.alloc(size));
  };
  socket.on("data", (chunk: Buffer) => {
    awaited -= chunk.length;
    if (awaited === 0) sendNext();
  });
  socket.resume();
  sendNext();
  return new Promise((resolve) => {
    socket.once("close", () => resolve());
  });
}

/** Resolves after a time at the latest. Keeps the process alive, which may have no other reason to be so yet. */
async function withTimeout(promise: Promise<unknown>, time: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, time);
  });
  await Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}
