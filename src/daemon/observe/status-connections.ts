/**
 * Bounds the connections of the status server. Health must be told while others hold connections open, so a new
 * connection is never rejected: the oldest one that sends no request is closed for it.
 */
import type { Socket } from "node:net";
import { descriptorLimit } from "../../net/descriptors.ts";
import { deadline } from "../../net/timers.ts";

/**
 * How many connections the status server holds: few beside those of the tunnels, but so many that in a flood of thousands a
 * second a client has the time to send its request.
 */
const MAX_CONNECTIONS = 256;

/** The part of the process's file descriptors that the status server may take, if that is less. */
const DESCRIPTOR_SHARE = 1 / 16;

/** Time for the head of the request, ms. */
const REQUEST_TIMEOUT_MS = 3000;

/** Time for the answer, until its last byte is in the system's buffers, ms. */
const RESPONSE_TIMEOUT_MS = 10_000;

/** The open connections. Each carries one request. */
export class StatusConnections {
  readonly #capacity = Math.min(MAX_CONNECTIONS, Math.ceil(descriptorLimit() * DESCRIPTOR_SHARE));
  /** Cancels the time limits of connections without a complete request head, oldest first. */
  readonly #unasked = new Map<Socket, () => void>();
  /** The same for connections that are being answered. */
  readonly #asked = new Map<Socket, () => void>();

  /** Adds an accepted connection; if there are too many, the one that has waited longest is closed. */
  add(socket: Socket): void {
    this.#unasked.set(
      socket,
      deadline(REQUEST_TIMEOUT_MS, () => this.#close(socket)),
    );
    socket.once("close", () => this.#close(socket));
    if (this.#unasked.size + this.#asked.size <= this.#capacity) return;
    const [oldest] = this.#unasked.size > 1 ? this.#unasked.keys() : this.#asked.keys();
    if (oldest !== undefined) this.#close(oldest);
  }

  /**
   * Notes that the head of a request is complete.
   *
   * @returns false if it is not the connection's first; the connection is closed then.
   */
  ask(socket: Socket): boolean {
    const cancel = this.#unasked.get(socket);
    if (cancel === undefined) {
      this.#close(socket);
      return false;
    }
    cancel();
    this.#unasked.delete(socket);
    this.#asked.set(
      socket,
      deadline(RESPONSE_TIMEOUT_MS, () => this.#close(socket)),
    );
    return true;
  }

  /** Closes all connections. */
  destroy(): void {
    for (const socket of [...this.#unasked.keys(), ...this.#asked.keys()]) this.#close(socket);
  }

  #close(socket: Socket): void {
    for (const connections of [this.#unasked, this.#asked]) {
      connections.get(socket)?.();
      connections.delete(socket);
    }
    socket.destroy();
  }
}
