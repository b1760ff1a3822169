/** HTTP over encrypted connections, with the connection pooling of `http.Agent`. */
import { Agent, type AgentOptions, type ClientRequestArgs } from "node:http";
import type { Duplex } from "node:stream";
import { type ConnectOptions, connect } from "./connect.ts";

class SpipedAgent extends Agent {
  readonly #target: ConnectOptions;

  constructor(target: ConnectOptions, options?: AgentOptions) {
    super(options);
    this.#target = target;
  }

  override createConnection(
    _request: ClientRequestArgs,
    callback?: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    // Node's callback accepts an error without a stream, which its type does not allow.
    const done = callback as (error: Error | null, stream?: Duplex) => void;
    connect({ ...this.#target, allowHalfOpen: false }).then((socket) => done(null, socket), done);
  }
}

/**
 * Creates an agent for `http.request({ agent })` that connects to one encrypted address.
 *
 * @param target - options of `connect()`; a request's own host and port appear only in its headers.
 * @param options - options of `http.Agent`, for example `{ keepAlive: true }`.
 */
export function httpAgent(target: ConnectOptions, options?: AgentOptions): Agent {
  return new SpipedAgent(target, options);
}
