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

/** The answer in place of an invalid one to a request to listen. */
const INVALID_ANSWER: SocketError = { code: "", message: "invalid answer from the worker" };

type Properties = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Properties {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isFields(value: unknown): value is Fields {
  const isField = (field: unknown) => ["string", "number", "undefined"].includes(typeof field);
  return isObject(value) && Object.values(value).every(isField);
}

/**
 * Returns the message of a worker if it is valid. A worker of another version may send others: it starts from the
 * installed file, which may have been replaced since the primary started.
 */
export function parseWorkerMessage(value: unknown): WorkerMessage | undefined {
  if (!isObject(value)) return undefined;
  const { type, level, message, fields, request, limit, requestId } = value;
  const isValid = (): boolean => {
    switch (type) {
      case "ready":
      case "pong":
        return true;
      case "log":
        return (
          (level === "warn" || level === "info") &&
          typeof message === "string" &&
          (fields === undefined || isFields(fields))
        );
      case "answer":
        return isCount(request);
      case "acquire":
      case "cancel":
        return typeof limit === "string" && isCount(requestId);
      case "release":
        return typeof limit === "string";
      default:
        return false;
    }
  };
  return isValid() ? (value as WorkerMessage) : undefined;
}

/**
 * Checks the answer to a request.
 *
 * @returns the answer; if it is invalid, undefined or, for a request to listen, a SocketError.
 */
export function checkAnswer(type: ParentMessage["type"], answer: unknown): unknown {
  switch (type) {
    case "listen":
      return answer === true || isSocketError(answer) ? answer : INVALID_ANSWER;
    case "connections":
      return isCount(answer) ? answer : undefined;
    case "reachable":
      return typeof answer === "boolean" ? answer : undefined;
    case "metrics":
      return Array.isArray(answer) && answer.every(isMetric) ? answer : undefined;
    default:
      return answer;
  }
}

function isSocketError(value: unknown): value is SocketError {
  return isObject(value) && typeof value.code === "string" && typeof value.message === "string";
}

/** Returns true if metrics of this kind can be added up with those of other workers. */
function isMetric(value: unknown): boolean {
  if (!isObject(value)) return false;
  const { name, help, type, aggregator, values } = value;
  return (
    [name, help, type].every((text) => typeof text === "string") &&
    ["sum", "first", "omit", "average", "min", "max"].includes(aggregator as string) &&
    Array.isArray(values) &&
    values.every((each) => isObject(each) && typeof each.value === "number" && isObject(each.labels))
  );
}
