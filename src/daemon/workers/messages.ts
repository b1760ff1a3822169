/** Messages between the primary and its workers, which communicate in no other way. */
import type { Fields } from "../observe/log.ts";
import type { SerializedPlan } from "./serialized-plan.ts";

/** Environment variable that marks a worker. A process without an IPC channel to its parent ignores it. */
export const WORKER_VARIABLE = "SPIPED_WORKER";

/** Error of a tunnel whose socket this version of Node cannot bind or send to workers. */
export const CANNOT_SHARE = "this version of Node cannot share a socket among processes";

/** A message that the worker answers with an `answer` message of the same number. */
interface Request {
  readonly request: number;
}

/** Messages to a worker. */
export type ParentMessage =
  | {
      readonly type: "setup";
      /** Number of workers that share the limits on unauthenticated connections. */
      readonly workers: number;
      /** True to log each connection. */
      readonly logConnections: boolean;
      readonly collectMetrics: boolean;
      /** True to warm up before the worker accepts connections. */
      readonly warmsUp: boolean;
    }
  /** Accept connections from the socket sent with the message. The answer is true or a SocketError. */
  | ({ readonly type: "listen"; readonly tunnel: number; readonly plan: SerializedPlan } & Request)
  /** Apply a new plan to later connections. */
  | { readonly type: "change"; readonly tunnel: number; readonly plan: SerializedPlan }
  /** Stop listening, and reset the tunnel's connections. */
  | { readonly type: "destroy"; readonly tunnel: number }
  /** The answer is sent when the tunnel's last connection has closed. */
  | ({ readonly type: "drain"; readonly tunnel: number } & Request)
  | ({ readonly type: "reachable"; readonly tunnel: number } & Request)
  /** The answer is the number of the tunnel's open connections. */
  | ({ readonly type: "connections"; readonly tunnel: number } & Request)
  | ({ readonly type: "metrics" } & Request)
  /** The worker must respond with "pong" immediately. */
  | { readonly type: "ping" }
  /** A slot was granted. */
  | { readonly type: "acquired"; readonly requestId: number };

/** Messages to the primary. */
export type WorkerMessage =
  | { readonly type: "ready" }
  | { readonly type: "pong" }
  | {
      readonly type: "log";
      readonly level: "warn" | "info";
      readonly message: string;
      readonly fields?: Fields;
    }
  | ({ readonly type: "answer"; readonly value: unknown } & Request)
  /** Requests a slot of a limit, by the limit's ID. */
  | { readonly type: "acquire"; readonly limit: string; readonly requestId: number }
  /** The connection that requested the slot has closed. */
  | { readonly type: "cancel"; readonly limit: string; readonly requestId: number }
  | { readonly type: "release"; readonly limit: string };

/** A failure to listen, in serializable form. */
export interface SocketError {
  readonly code: string;
  readonly message: string;
}
