/**
 * Limits the status server's connections. Health checks must work even if other clients hold connections open, so new
 * connections are never rejected: the oldest one without a request is closed instead.
 */
import type { Socket } from "node:net";
import { descriptorLimit } from "../../net/descriptors.ts";
import { startTimeout } from "../../net/timers.ts";

/**
 * Maximum number of connections: few compared to the tunnels' connections, but enough that a client has time to send
 * its request during a flood of thousands of connections per second.
 */
const MAX_CONNECTIONS = 256;

/** Fraction of the process's file descriptors that the status server may use, if that is fewer. */
const DESCRIPTOR_SHARE = 1 / 16;

/** Timeout for receiving the head of the request, in ms. */
const REQUEST_TIMEOUT_MS = 3000;

/** Timeout for the response, until its last byte is in the kernel's buffers, in ms. */
const RESPONSE_TIMEOUT_MS = 10_000;

/** The open connections, each of which carries one request. */
export class StatusConnections {
  readonly #capacity = Math.min(MAX_CONNECTIONS, Math.ceil(descriptorLimit() * DESCRIPTOR_SHARE));
  /** Functions that cancel the timeouts of connections without a complete request head, oldest first. */
  readonly #receiving = new Map<Socket, () => void>();
  /** The same for connections whose response is pending. */
  readonly #responding = new Map<Socket, () => void>();

  /** Adds an accepted connection; if there are too many, closes the oldest, preferably one without a request. */
  add(socket: Socket): void {
    this.#receiving.set(
      socket,
      startTimeout(REQUEST_TIMEOUT_MS, () => this.#close(socket)),
    );
    socket.once("close", () => this.#close(socket));
    if (this.#receiving.size + this.#responding.size <= this.#capacity) return;
    const [oldest] = this.#receiving.size > 1 ? this.#receiving.keys() : this.#responding.keys();
    if (oldest !== undefined) this.#close(oldest);
  }

  /**
   * Records that the head of a request is complete.
   *
   * @returns false if it is not the connection's first request; the connection is then closed.
   */
  startResponse(socket: Socket): boolean {
    const cancel = this.#receiving.get(socket);
    if (cancel === undefined) {
      this.#close(socket);
      return false;
    }
    cancel();
    this.#receiving.delete(socket);
    this.#responding.set(
      socket,
      startTimeout(RESPONSE_TIMEOUT_MS, () => this.#close(socket)),
    );
    return true;
  }

  /** Closes all connections. */
  destroy(): void {
    for (const socket of [...this.#receiving.keys(), ...this.#responding.keys()]) this.#close(socket);
  }

  #close(socket: Socket): void {
    for (const connections of [this.#receiving, this.#responding]) {
      connections.get(socket)?.();
      connections.delete(socket);
    }
    socket.destroy();
  }
}
