/** What the primary and its workers send each other. Nothing else crosses the border between the processes. */
import type { Fields } from "../observe/log.ts";
import type { PortablePlan } from "./portable-plan.ts";

/** Marks a process as a worker. A process that has no channel to its parent ignores it. */
export const WORKER_VARIABLE = "SPIPED_WORKER";

/** Answered with a WorkerMessage `answer` of the same number. */
interface Request {
  readonly request: number;
}

/** To a worker. */
export type ParentMessage =
  | {
      readonly type: "setup";
      /** How many workers share what is limited. */
      readonly workers: number;
      /** Write a message for each connection. */
      readonly logConnections: boolean;
      readonly collectMetrics: boolean;
    }
  /** Accept connections from the listening socket that comes with the message; the answer is a SocketError or true. */
  | ({ readonly type: "listen"; readonly tunnel: number; readonly plan: PortablePlan } & Request)
  | { readonly type: "change"; readonly tunnel: number; readonly plan: PortablePlan }
  /** Answered when the tunnel's last connection has ended. */
  | ({ readonly type: "drain"; readonly tunnel: number } & Request)
  | ({ readonly type: "reachable"; readonly tunnel: number } & Request)
  /** Answered with the number of the tunnel's open connections. */
  | ({ readonly type: "connections"; readonly tunnel: number } & Request)
  | ({ readonly type: "metrics" } & Request)
  /** To be answered with "pong" at once. */
  | { readonly type: "ping" }
  | { readonly type: "acquired"; readonly ticket: number };

/** To the primary. */
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
  /** Asks for a slot of a limit, by its id. */
  | { readonly type: "acquire"; readonly limit: string; readonly ticket: number }
  /** The connection that asked is gone. */
  | { readonly type: "cancel"; readonly limit: string; readonly ticket: number }
  | { readonly type: "release"; readonly limit: string };

/** A failure to listen, as it travels. */
export interface SocketError {
  readonly code: string;
  readonly message: string;
}
