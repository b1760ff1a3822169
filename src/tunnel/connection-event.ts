/**
 * The events of connections, from accept or connect to close. Log, metrics and `node:diagnostics_channel` get the same
 * events; `docs/reference/diagnostics-channels.md` documents them.
 */
import { CLOSE_REASONS, type CloseReason, type Closing } from "./close-reason.ts";
import { CHANNELS } from "./diagnostics-channels.ts";
import type { Traffic } from "./pipe.ts";

/** A step in the life of a connection. */
export type ConnectionStep =
  /** A client has connected; it is not authenticated. */
  | "accepted"
  /** The other side has proved that it holds the key. */
  | "authenticated"
  /** The connection is queued for a slot. Not emitted if one is granted immediately. */
  | "waiting"
  /** The connection has its slots; connecting to the target begins. */
  | "connecting"
  /** A target has accepted the connection. Emitted again if its handshake fails and another target is tried. */
  | "connected"
  /** Data can flow. */
  | "opened";

/** What is known about a connection when an event occurs. */
interface ConnectionFacts {
  /** Number of the connection, unique in the process: the same in all events of a connection. */
  readonly id: number;
  /** Number of the connection in the log, starting at 1 for each tunnel in each process, or for each server. */
  readonly number: number;
  /** Name of the tunnel; undefined for a tunnel given on the command line, and in the library. */
  readonly tunnel: string | undefined;
  /** `decrypt`: accepted encrypted, by `spiped -d` or `createServer()`. `encrypt`: opened encrypted. */
  readonly mode: "encrypt" | "decrypt";
  /**
   * Client address: `ADDRESS:PORT`, from the PROXY protocol header if there was one, `unix`, or `unknown` if the client
   * had left before the connection was accepted; undefined for `connect()`, whose client is this program.
   */
  readonly peer: string | undefined;
  /** Client ID for limits and penalties: an IPv4 address, the /64 network of an IPv6 address, or `unix`. */
  readonly source: string | undefined;
  /** Name of the client's key; undefined if keys have no names, or before the client is authenticated. */
  readonly keyName: string | undefined;
  /** Fingerprint of the client's key, as several may share a name; undefined if `keyName` is. */
  readonly keyFingerprint: string | undefined;
  /** The target tried last, as configured; its address once data can flow. */
  readonly target: string | undefined;
  /** Time since the connection was accepted, or since `connect()` was called, in ms. */
  readonly elapsed: number;
  /** Time until the other side was authenticated, in ms. */
  readonly handshakeTime: number | undefined;
}

/** A step of a connection. */
export interface StepEvent extends ConnectionFacts {
  readonly type: ConnectionStep;
}

/** A connection has closed, whether data could flow or not. */
export interface ClosedEvent extends ConnectionFacts {
  readonly type: "closed";
  readonly reason: CloseReason;
  /** The reason with its details in one line, as in the log. */
  readonly text: string;
  /** The reason's label value in metrics. */
  readonly label: string;
  /** False if the connection ended cleanly, or was closed as configured. */
  readonly failed: boolean;
  /** What an operator can check; undefined if the connection did not fail, and in the library. */
  readonly advice: string | undefined;
  /** True if data could flow. */
  readonly opened: boolean;
  /** Bytes of data that this side encrypted. */
  readonly bytesEncrypted: number;
  /** Bytes of data that this side decrypted. */
  readonly bytesDecrypted: number;
}

/** An event of a connection, frozen. */
export type ConnectionEvent = StepEvent | ClosedEvent;

/**
 * Receives the events of connections.
 *
 * @param traffic - the connection's byte counts, which change while it is open.
 */
type ConnectionListener = (event: ConnectionEvent, traffic: Readonly<Traffic>) => void;

/** Receivers of a connection's events. */
export interface ConnectionListeners {
  /** Called with each event. */
  readonly connection?: ConnectionListener | undefined;
  /** Called with the last event of a connection that failed. Without other receivers, no other events are created. */
  readonly failed?: ((event: ClosedEvent) => void) | undefined;
}

/** What is known about a connection from its start. */
type Origin = Pick<ConnectionFacts, "number" | "tunnel" | "mode" | "peer" | "source">;

let lastId = 0;

/** Collects what is known about one connection, and reports its events. */
export class ConnectionRecord {
  readonly #id: number;
  readonly #number: number;
  readonly #tunnel: string | undefined;
  readonly #mode: "encrypt" | "decrypt";
  readonly #listeners: ConnectionListeners | undefined;
  readonly #isPublished: boolean;
  /** Time of the accept or of the call of `connect()`, in ms on the monotonic clock. */
  readonly #startedAt: number;
  #opened = false;
  peer: string | undefined;
  source: string | undefined;
  keyName: string | undefined;
  keyFingerprint: string | undefined;
  target: string | undefined;
  #handshakeTime: number | undefined;
  readonly traffic: Traffic = { bytesEncrypted: 0, bytesDecrypted: 0 };

  /** @param isPublished - whether events are published on the diagnostics channels. */
  constructor(
    { number, tunnel, mode, peer, source }: Origin,
    listeners?: ConnectionListeners,
    isPublished = true,
  ) {
    this.#id = isPublished ? ++lastId : 0;
    this.#number = number;
    this.#tunnel = tunnel;
    this.#mode = mode;
    this.#listeners = listeners;
    this.#isPublished = isPublished;
    this.#startedAt = performance.now();
    this.peer = peer;
    this.source = source;
    this.keyName = undefined;
    this.keyFingerprint = undefined;
    this.target = undefined;
    this.#handshakeTime = undefined;
  }

  /** Records that the other side has proved that it holds the key. */
  recordHandshake(): void {
    this.#handshakeTime = this.#elapsed();
  }

  report(type: ConnectionStep): void {
    if (type === "opened") this.#opened = true;
    if (this.#hasListeners(type)) this.#emit(Object.freeze({ type, ...this.#facts() }));
  }

  /** Reports the end of the connection; to be called once. */
  reportClosed({ reason, text, label }: Closing, advice?: string): void {
    const failed = CLOSE_REASONS[reason].isFailure;
    const onFailed = failed ? this.#listeners?.failed : undefined;
    if (onFailed === undefined && !this.#hasListeners("closed")) return;
    const { bytesEncrypted, bytesDecrypted } = this.traffic;
    const event: ClosedEvent = Object.freeze({
      type: "closed",
      ...this.#facts(),
      reason,
      text,
      label,
      failed,
      advice,
      opened: this.#opened,
      bytesEncrypted,
      bytesDecrypted,
    });
    onFailed?.(event);
    this.#emit(event);
  }

  #hasListeners(type: ConnectionEvent["type"]): boolean {
    const isPublished = this.#isPublished && CHANNELS[type].hasSubscribers;
    return isPublished || this.#listeners?.connection !== undefined;
  }

  /** @param event - frozen. */
  #emit(event: ConnectionEvent): void {
    this.#listeners?.connection?.(event, this.traffic);
    const channel = CHANNELS[event.type];
    if (this.#isPublished && channel.hasSubscribers) channel.publish(event);
  }

  #elapsed(): number {
    return performance.now() - this.#startedAt;
  }

  #facts(): ConnectionFacts {
    return {
      id: this.#id,
      number: this.#number,
      tunnel: this.#tunnel,
      mode: this.#mode,
      peer: this.peer,
      source: this.source,
      keyName: this.keyName,
      keyFingerprint: this.keyFingerprint,
      target: this.target,
      elapsed: this.#elapsed(),
      handshakeTime: this.#handshakeTime,
    };
  }
}
