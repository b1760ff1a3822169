/**
 * The pipe itself: two pumps between a plain socket and an encrypted one, and the end of both.
 *
 * Each direction ends by itself. When both have ended, the connection is over. On an error, nothing more is read; a
 * socket that still works gets what was read before, and then a reset instead of an orderly end, so that its peer does
 * not take a broken stream for a complete one.
 */
import type { Socket } from "node:net";
import { DirectSocket } from "../net/direct-read.ts";
import { resetWhenDelivered } from "../net/linger.ts";
import { reset } from "../net/reset.ts";
import { deadline } from "../net/timers.ts";
import type { Engine } from "../protocol/engine/engine.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { Opener } from "../protocol/opener.ts";
import { Sealer } from "../protocol/sealer.ts";
import { type Converter, pump } from "./pump.ts";
import { BrokenPipeError, IdleError } from "./tunnel-error.ts";

/** How much went through a pipe, bytes of data. */
export interface Traffic {
  /** From the plain socket to the encrypted one. */
  sealed: number;
  /** From the encrypted socket to the plain one. */
  opened: number;
}

/** What a pipe needs. Both sockets must be connected, half-open capable, and have a listener for errors. */
export interface PipeOptions {
  readonly plain: Socket;
  readonly wire: Socket;
  /** Overwritten before this function returns. */
  readonly session: SessionKeys;
  readonly engine: Engine;
  readonly keepAlive: boolean;
  /** How long no data may flow in either direction, ms; `Infinity` for ever. */
  readonly idleTimeout: number;
  /** Counts as the data flows. */
  readonly traffic: Traffic;
}

/**
 * Starts to move data both ways.
 *
 * @returns a promise that resolves when both directions have ended in order, and rejects with the first error: a
 * PacketError, a BrokenPipeError or an IdleError. Both sockets are closed by then.
 */
export function pipe(options: PipeOptions): Promise<void> {
  const { plain, wire, session, engine, keepAlive, idleTimeout, traffic } = options;
  const sealer = new Sealer(engine, session.seal);
  const opener = new Opener(engine, session.open);
  session.destroy();

  for (const socket of [plain, wire]) {
    socket.setNoDelay(true);
    socket.setKeepAlive(keepAlive);
  }

  return new Promise<void>((resolve, reject) => {
    const sockets = [plain, wire];
    const otherOf = (socket: Socket) => (socket === plain ? wire : plain);
    const stops: (() => void)[] = [];
    let running = 2;
    const stop = () => {
      running = 0;
      for (const stopOne of stops) stopOne();
      for (const socket of sockets) {
        socket.off("close", onClose);
        socket.off("writeError", onWriteError);
      }
      sealer.destroy();
      opener.destroy();
    };
    /** @param receiver the socket that gets what was written to it before it is reset; undefined if none does. */
    const fail = (error: Error, receiver?: Socket) => {
      if (running === 0) return;
      stop();
      for (const socket of sockets) if (socket !== receiver) reset(socket);
      if (receiver === undefined) reject(error);
      else resetWhenDelivered(receiver, () => reject(error));
    };
    const broken = (socket: Socket, cause: Error | null | undefined, receiver?: Socket) =>
      fail(new BrokenPipeError(socket === wire ? "wire" : "plain", cause ?? null), receiver);
    const directionEnded = (failure?: Error) => {
      if (running === 0) return;
      // What was genuine is delivered.
      if (failure !== undefined) {
        fail(failure, plain);
        return;
      }
      running -= 1;
      if (running > 0) return;
      stop();
      for (const socket of sockets) socket.destroy();
      resolve();
    };
    function onClose(this: Socket) {
      // A socket whose two directions have ended closes by itself, maybe before the other one has taken everything.
      const orderly = this.readableEnded && this.writableFinished && this.errored === null;
      if (!orderly) broken(this, this.errored, otherOf(this));
    }
    /** What a socket has received before is still delivered, unless the other one can't be written to either. */
    const onWriteError = () => {
      const failed = sockets.filter(
        (socket) => socket instanceof DirectSocket && socket.writeError !== undefined,
      );
      if (failed.length === 2) broken(plain, (plain as DirectSocket).writeError);
    };
    const gone = sockets.find((socket) => socket.destroyed);
    if (gone !== undefined) {
      broken(gone, gone.errored, otherOf(gone));
      return;
    }
    for (const socket of sockets) {
      socket.on("close", onClose);
      socket.on("writeError", onWriteError);
    }
    onWriteError();
    if (idleTimeout !== Number.POSITIVE_INFINITY) {
      stops.push(watchTraffic(traffic, idleTimeout, () => fail(new IdleError(idleTimeout))));
    }
    stops.push(
      pump(plain, wire, new Sealing(sealer, traffic), traffic, directionEnded),
      pump(wire, plain, new Opening(opener, traffic), traffic, directionEnded),
    );
  });
}

/**
 * Calls `onIdle` when no data has flowed for `timeout` ms.
 *
 * @returns a function that stops watching.
 */
function watchTraffic(traffic: Traffic, timeout: number, onIdle: () => void): () => void {
  let { sealed, opened } = traffic;
  let lastChange = performance.now();
  let cancel = () => {};
  const wait = (delay: number) => {
    cancel = deadline(delay, () => {
      const now = performance.now();
      if (traffic.sealed !== sealed || traffic.opened !== opened) {
        ({ sealed, opened } = traffic);
        lastChange = now;
      }
      if (now - lastChange >= timeout) onIdle();
      else wait(Math.max(1, Math.min(timeout / 8, lastChange + timeout - now)));
    });
  };
  wait(timeout / 8);
  return () => cancel();
}

class Sealing implements Converter {
  readonly #sealer: Sealer;
  readonly #traffic: Traffic;

  constructor(sealer: Sealer, traffic: Traffic) {
    this.#sealer = sealer;
    this.#traffic = traffic;
  }

  convert(input: Uint8Array, output: Uint8Array): number {
    this.#traffic.sealed += input.length;
    return this.#sealer.seal(input, output);
  }

  failure(): undefined {
    return undefined;
  }
}

class Opening implements Converter {
  readonly #opener: Opener;
  readonly #traffic: Traffic;

  constructor(opener: Opener, traffic: Traffic) {
    this.#opener = opener;
    this.#traffic = traffic;
  }

  convert(input: Uint8Array, output: Uint8Array): number {
    const length = this.#opener.open(input, output);
    this.#traffic.opened += length;
    return length;
  }

  failure(ended: boolean): Error | undefined {
    return ended ? this.#opener.end() : this.#opener.failure;
  }
}
