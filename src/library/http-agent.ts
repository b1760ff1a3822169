/** HTTP through an encrypted connection, with the pooling of Node's own agent. */
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
    // Node calls back with an error and nothing else when a connection failed; its type leaves that out.
    const done = callback as (error: Error | null, stream?: Duplex) => void;
    connect({ ...this.#target, allowHalfOpen: false }).then((socket) => done(null, socket), done);
  }
}

/**
 * Makes an agent for `http.request({ agent })`, whose connections all go to one encrypted address.
 *
 * @param target where to connect and how; the host and port of a request end up in its headers only.
 * @param options of `http.Agent`, `{ keepAlive: true }` for example.
 */
export function httpAgent(target: ConnectOptions, options?: AgentOptions): Agent {
  return new SpipedAgent(target, options);
}
