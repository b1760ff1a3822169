/** What the daemon tells about its connections: to the log, and to metrics. */
import type { Traffic } from "../../tunnel/pipe.ts";

/** A connection, from accept to close. */
export interface ConnectionInfo {
  /** Counted from 1 for each tunnel in each process. */
  readonly id: number;
  /** Name of its tunnel, if tunnels have names. */
  readonly tunnel: string | undefined;
  /** What limits count its client by: its IPv4 address, the /64 network of its IPv6 address, or `unix`. */
  source: string;
  /** Who connected: `ADDRESS:PORT`, or `unix`; whom a load balancer says it is. */
  peer: string;
  /** When it was accepted, ms on the monotonic clock. */
  readonly acceptedAt: number;
  /**
   * `stranger`: the client has not proved that it holds the key; `waiting`: no slot is free; `connecting`: the target
   * or the handshake with it is due; `open`: data flows.
   */
  state: "stranger" | "waiting" | "connecting" | "open" | "closed";
  /** Name of the client, if keys have names. */
  keyName?: string | undefined;
  /** Fingerprint of the key that the client holds, if keys have names: a client may have several. */
  keyFingerprint?: string | undefined;
  /** The target that was tried last, as configured; its address, once connected. */
  target?: string;
  /** From accept to the other side's proof that it holds the key, ms. */
  handshakeTime?: number;
  /** When data began to flow, ms on the monotonic clock. */
  openedAt?: number;
  readonly traffic: Traffic;
}

/** Told of each connection's way. */
export interface Observer {
  /** Accepted. */
  accepted?(connection: ConnectionInfo): void;
  /** Handshake and connect are complete. */
  opened?(connection: ConnectionInfo): void;
  /**
   * Over. A connection that never opened is reported here too.
   *
   * @param reason one line: `closed` for an orderly end, or what went wrong, such as `handshake: wrong key`.
   * @param advice what an operator can check if the connection failed; undefined if it did not, or if the daemon closed
   * it as configured.
   */
  closed?(connection: ConnectionInfo, reason: string, advice: string | undefined): void;
  /** A look-up of one of the tunnel's targets failed; the last answer stays in force. */
  lookUpFailed?(tunnel: string | undefined): void;
}

/** An observer that tells all the others. */
export function allObservers(...observers: readonly Observer[]): Observer {
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
    lookUpFailed: (tunnel) => {
      for (const observer of observers) observer.lookUpFailed?.(tunnel);
    },
  };
}
