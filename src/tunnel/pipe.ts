/**
 * The pipe: two pumps between a plaintext socket and an encrypted one.
 *
 * Each direction ends independently; the connection closes when both have ended. On an error, reading stops. A socket
 * that still works is sent the data read before, and then a reset instead of EOF, so that its peer does not mistake a
 * truncated stream for a complete one.
 */
import type { Socket } from "node:net";
import { setReadBuffer, writeErrorOf } from "../net/direct-read.ts";
import { resetWhenDelivered } from "../net/linger.ts";
import { reset } from "../net/reset.ts";
import { startTimeout } from "../net/timers.ts";
import type { Engine, Workspace } from "../protocol/engine/engine.ts";
import type { Output } from "../protocol/engine/output-pool.ts";
import type { SessionKeys } from "../protocol/key-schedule.ts";
import { Opener } from "../protocol/opener.ts";
import { Sealer } from "../protocol/sealer.ts";
import { maintain } from "./engine-upkeep.ts";
import { Pump, type Transform } from "./pump.ts";
import { ConnectionLostError, IdleError } from "./tunnel-error.ts";

/** Bytes of data transferred by a pipe. */
export interface Traffic {
  /** Bytes encrypted: from the plaintext socket to the encrypted one. */
  bytesEncrypted: number;
  /** Bytes decrypted: from the encrypted socket to the plaintext one. */
  bytesDecrypted: number;
}

/** Options for `pipe`. Both sockets must be connected, with `allowHalfOpen` and an 'error' listener. */
export interface PipeOptions {
  /** The plaintext socket. */
  readonly plaintext: Socket;
  /** The encrypted socket. */
  readonly encrypted: Socket;
  /** Session keys, overwritten before `pipe` returns. */
  readonly session: SessionKeys;
  readonly engine: Engine;
  readonly keepAlive: boolean;
  /** Maximum time in which neither direction transfers data, in ms; `Infinity` for no limit. */
  readonly idleTimeout: number;
  /** Counters, updated while the pipe runs. */
  readonly traffic: Traffic;
}

/**
 * Starts transferring data in both directions.
 *
 * @returns a promise that resolves when both directions have ended cleanly, and rejects with the first error: a
 * PacketError, a ConnectionLostError or an IdleError. Both sockets are then closed.
 */
export function pipe(options: PipeOptions): Promise<void> {
  const { plaintext, encrypted, session, engine, keepAlive, idleTimeout, traffic } = options;
  const { workspace } = engine;
  setReadBuffer(workspace.readBuffer);
  maintain(engine);
  const sealer = new Sealer(engine, session.seal);
  const opener = new Opener(engine, session.open);
  session.destroy();

  for (const socket of [plaintext, encrypted]) {
    socket.setNoDelay(true);
    socket.setKeepAlive(keepAlive);
  }

  return new Promise<void>((resolve, reject) => {
    const sockets = [plaintext, encrypted];
    const otherOf = (socket: Socket) => (socket === plaintext ? encrypted : plaintext);
    const pumps: Pump[] = [];
    let stopWatching = () => {};
    let openDirections = 2;
    const stop = () => {
      openDirections = 0;
      stopWatching();
      for (const pump of pumps) pump.stop();
      for (const socket of sockets) {
        socket.off("close", onClose);
        socket.off("writeError", onWriteError);
      }
      sealer.destroy();
      opener.destroy();
    };
    /** @param receiver - the socket whose written data is delivered before its reset; undefined to reset both now. */
    const fail = (error: Error, receiver?: Socket) => {
      if (openDirections === 0) return;
      stop();
      for (const socket of sockets) if (socket !== receiver) reset(socket);
      if (receiver === undefined) reject(error);
      else resetWhenDelivered(receiver, () => reject(error));
    };
    const connectionLost = (socket: Socket, cause: Error | null | undefined, receiver?: Socket) =>
      fail(
        new ConnectionLostError(socket === encrypted ? "encrypted" : "plaintext", cause ?? null),
        receiver,
      );
    const directionEnded = (failure?: Error) => {
      if (openDirections === 0) return;
      // Deliver the data authenticated before the failure.
      if (failure !== undefined) {
        fail(failure, plaintext);
        return;
      }
      openDirections -= 1;
      if (openDirections > 0) return;
      stop();
      for (const socket of sockets) socket.destroy();
      resolve();
    };
    function onClose(this: Socket) {
      // A socket closes automatically when both of its directions have ended, maybe before the other has sent all data.
      const endedCleanly = this.readableEnded && this.writableFinished && this.errored === null;
      if (!endedCleanly) connectionLost(this, this.errored, otherOf(this));
    }
    /** Data received before a failed write is still delivered, unless writes to the other socket have failed too. */
    const onWriteError = () => {
      const errors = sockets.map(writeErrorOf);
      if (!errors.includes(undefined)) connectionLost(plaintext, errors[0]);
    };
    const destroyed = sockets.find((socket) => socket.destroyed);
    if (destroyed !== undefined) {
      connectionLost(destroyed, destroyed.errored, otherOf(destroyed));
      return;
    }
    for (const socket of sockets) {
      socket.on("close", onClose);
      socket.on("writeError", onWriteError);
    }
    onWriteError();
    if (idleTimeout !== Number.POSITIVE_INFINITY) {
      stopWatching = watchTraffic(traffic, idleTimeout, () => fail(new IdleError(idleTimeout)));
    }
    const sealing = new SealingTransform(workspace, sealer, traffic);
    const opening = new OpeningTransform(workspace, opener, traffic);
    pumps.push(
      new Pump(plaintext, encrypted, sealing, traffic, directionEnded),
      new Pump(encrypted, plaintext, opening, traffic, directionEnded),
    );
  });
}

/**
 * Calls `onIdle` when no data has been transferred for `timeout` ms.
 *
 * @returns a function that stops watching.
 */
function watchTraffic(traffic: Traffic, timeout: number, onIdle: () => void): () => void {
  let { bytesEncrypted: sealed, bytesDecrypted: opened } = traffic;
  let lastChange = performance.now();
  let cancel = () => {};
  const wait = (delay: number) => {
    cancel = startTimeout(delay, () => {
      const now = performance.now();
      if (traffic.bytesEncrypted !== sealed || traffic.bytesDecrypted !== opened) {
        ({ bytesEncrypted: sealed, bytesDecrypted: opened } = traffic);
        lastChange = now;
      }
      if (now - lastChange >= timeout) onIdle();
      else wait(Math.max(1, Math.min(timeout / 8, lastChange + timeout - now)));
    });
  };
  wait(timeout / 8);
  return () => cancel();
}

class SealingTransform implements Transform {
  readonly workspace: Workspace;
  readonly #sealer: Sealer;
  readonly #traffic: Traffic;

  constructor(workspace: Workspace, sealer: Sealer, traffic: Traffic) {
    this.workspace = workspace;
    this.#sealer = sealer;
    this.#traffic = traffic;
  }

  convert(length: number, output: Output): number {
    this.#traffic.bytesEncrypted += length;
    return this.#sealer.sealRead(length, output);
  }

  failure(): undefined {
    return undefined;
  }
}

class OpeningTransform implements Transform {
  readonly workspace: Workspace;
  readonly #opener: Opener;
  readonly #traffic: Traffic;

  constructor(workspace: Workspace, opener: Opener, traffic: Traffic) {
    this.workspace = workspace;
    this.#opener = opener;
    this.#traffic = traffic;
  }

  convert(length: number, output: Output): number {
    const written = this.#opener.openRead(length, output);
    this.#traffic.bytesDecrypted += written;
    return written;
  }

  failure(ended: boolean): Error | undefined {
    return ended ? this.#opener.end() : this.#opener.failure;
  }
}
