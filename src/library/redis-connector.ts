/** Encrypted connections for ioredis, including its reconnects. */
import type { SpipedSocket } from "../tunnel/spiped-socket.ts";
import { type ConnectOptions, connect } from "./connect.ts";

/** Interface of the class in the `Connector` option of ioredis. */
export interface RedisConnector {
  /** Returns true: the key authenticates the server. */
  check(info: unknown): boolean;
  connect(): Promise<SpipedSocket>;
  disconnect(): void;
}

/**
 * Returns a class for the `Connector` option of ioredis.
 *
 * @example
 * ```ts
 * const redis = new Redis({ Connector: redisConnector({ host: "redis.example.org", port: 16379, key }) });
 * ```
 *
 * @param options - options of `connect()`; `host`, `port` and `path` of ioredis are ignored.
 */
export function redisConnector(options: ConnectOptions): new () => RedisConnector {
  return class implements RedisConnector {
    #attempt = new AbortController();
    #socket: SpipedSocket | undefined;

    check(): boolean {
      return true;
    }

    async connect(): Promise<SpipedSocket> {
      this.#attempt = new AbortController();
      const { signal } = this.#attempt;
      const combined = options.signal === undefined ? signal : AbortSignal.any([signal, options.signal]);
      this.#socket = await connect({ ...options, signal: combined, allowHalfOpen: false });
      return this.#socket;
    }

    disconnect(): void {
      this.#attempt.abort(new Error("disconnected"));
      this.#socket?.end();
    }
  };
}
