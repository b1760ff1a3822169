/**
 * The pipe itself: two pumps between a plain socket and an encrypted one, and the end of both.
 *
 * Each direction ends by itself. When both have ended, the connection is over; on any error it is over at once, and
 * both peers get a reset instead of an orderly end, so that neither takes a broken stream for a complete one.
 */
import type { Socket } from "node:net";
import type { Engine } from "../protocol/engine.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { Opener } from "../protocol/opener.ts";
import { Sealer } from "../protocol/sealer.ts";
import { deadline } from "./deadline.ts";
import { BrokenPipeError, IdleError } from "./errors.ts";
import { type Converter, pump } from "./pump.ts";
import { reset } from "./reset.ts";

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
    let running = 2;
    const finish = (error?: Error) => {
      running = 0;
      for (const stop of stops) stop();
      for (const socket of [plain, wire]) {
        socket.off("close", onClose);
        if (error === undefined) socket.destroy();
        else reset(socket);
      }
      sealer.destroy();
      opener.destroy();
      if (error === undefined) resolve();
      else reject(error);
    };
    const directionEnded = (failure?: Error) => {
      if (running === 0) return;
      running -= 1;
      if (failure !== undefined || running === 0) finish(failure);
    };
    function onClose(this: Socket) {
      // A socket whose two directions have ended closes by itself, maybe before the other one has taken everything.
      const orderly = this.readableEnded && this.writableFinished && this.errored === null;
      if (!orderly) broken(this);
    }
    const stops: (() => void)[] = [];
    const broken = (socket: Socket) =>
      finish(new BrokenPipeError(socket === wire ? "wire" : "plain", socket.errored));
    const gone = [plain, wire].find((socket) => socket.destroyed);
    if (gone !== undefined) {
      broken(gone);
      return;
    }
    plain.on("close", onClose);
    wire.on("close", onClose);
    if (idleTimeout !== Number.POSITIVE_INFINITY) {
      stops.push(watchTraffic(traffic, idleTimeout, () => finish(new IdleError(idleTimeout))));
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
