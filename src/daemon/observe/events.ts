/** Connection lifecycle events, for the log and for metrics. */
import type { Traffic } from "../../tunnel/pipe.ts";

/** A connection, from accept to close. */
export interface ConnectionInfo {
  /** Sequence number, starting at 1 for each tunnel in each process. */
  readonly id: number;
  /** Name of its tunnel; undefined for a tunnel given on the command line. */
  readonly tunnel: string | undefined;
  /** Client ID for limits and penalties: an IPv4 address, the /64 network of an IPv6 address, or `unix`. */
  source: string;
  /** Client address: `ADDRESS:PORT`, from the PROXY protocol header if there was one, or `unix`. */
  peer: string;
  /** Time of accept, in ms on the monotonic clock. */
  readonly acceptedAt: number;
  /**
   * `stranger`: the client is not authenticated (`-d`); `waiting`: queued for a slot, also the initial state with `-e`;
   * `connecting`: connecting to the target or performing the handshake with it; `open`: data can flow.
   */
  state: "stranger" | "waiting" | "connecting" | "open" | "closed";
  /** Name of the client's key; undefined if keys have no names. */
  keyName?: string | undefined;
  /** Fingerprint of the client's key, as several may share a name; undefined if keys have no names. */
  keyFingerprint?: string | undefined;
  /** The last target tried, as configured; its address once data can flow. */
  target?: string;
  /** Time from accept until the peer was authenticated, in ms. */
  handshakeTime?: number;
  /** Time at which the connection opened, in ms on the monotonic clock. */
  openedAt?: number;
  readonly traffic: Traffic;
}

/** Receives connection lifecycle events. */
export interface Observer {
  /** Called when a connection is accepted. */
  accepted?(connection: ConnectionInfo): void;
  /** Called when the handshake and the connect are complete. */
  opened?(connection: ConnectionInfo): void;
  /**
   * Called when a connection has closed, even if it never opened.
   *
   * @param reason one line: `closed` if both sides ended their streams, or the error, such as `handshake: wrong key`.
   * @param advice what an operator can check; undefined unless the connection failed. One that the daemon closed as
   * configured has not failed.
   */
  closed?(connection: ConnectionInfo, reason: string, advice: string | undefined): void;
  /** Called when a DNS lookup of a target fails; the last known addresses stay in use. */
  resolveFailed?(tunnel: string | undefined): void;
}

/** Returns an observer that forwards each event to all `observers`. */
export function combineObservers(...observers: readonly Observer[]): Observer {
  return {
    accepted: (connection) => {
      for (const observer of observers) observer.accepted?.(connection);
    },
    opened: (connection) => {
      for (const observer of observers) observer.opened?.(connection);
    },
    closed: (connection, reason, advice) => {
      for (const observer of observers) observer.closed?.(connection, reason, advice);
    },
    resolveFailed: (tunnel) => {
      for (const observer of observers) observer.resolveFailed?.(tunnel);
    },
  };
}
