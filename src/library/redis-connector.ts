/** An encrypted connection for ioredis, made anew whenever ioredis reconnects. */
import type { SpipedSocket } from "../tunnel/spiped-socket.ts";
import { type ConnectOptions, connect } from "./connect.ts";

/** What ioredis asks of a class in its `Connector` option. */
export interface RedisConnector {
  /** Accepts any server: which one answers is decided by the key. */
  check(info: unknown): boolean;
  connect(): Promise<SpipedSocket>;
  disconnect(): void;
}

/**
 * Makes a class for the `Connector` option of ioredis.
 *
 * @example
 * ```ts
 * const redis = new Redis({ Connector: redisConnector({ host: "redis.example.org", port: 16379, key }) });
 * ```
 *
 * @param options where to connect and how; ioredis's own `host`, `port` and `path` mean nothing then.
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
      const given = options.signal === undefined ? signal : AbortSignal.any([signal, options.signal]);
      this.#socket = await connect({ ...options, signal: given, allowHalfOpen: false });
      return this.#socket;
    }

    disconnect(): void {
      this.#attempt.abort(new Error("disconnected"));
      this.#socket?.end();
    }
  };
}
