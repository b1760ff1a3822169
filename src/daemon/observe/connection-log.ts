/** Logs each connection that opens and each that closes, at level `info`. */
import type { ClosedEvent, ConnectionEvent } from "../../tunnel/connection-event.ts";
import type { Observer } from "./events.ts";
import type { Fields, Log } from "./log.ts";

/** Returns an observer that logs each connection's client, key, target, duration, bytes and close reason. */
export function connectionLog(log: Log): Observer {
  return {
    connection(event) {
      if (event.type === "opened")
        log.info(`${describeConnection(event)} opened`, { event: "opened", ...fieldsOf(event) });
      if (event.type === "closed") logClosed(log, event);
    },
  };
}

function logClosed(log: Log, event: ClosedEvent): void {
  const { bytesEncrypted, bytesDecrypted, text, reason } = event;
  const seconds = (event.elapsed / 1000).toFixed(3);
  log.info(
    `${describeConnection(event)} ended after ${seconds} s, ` +
      `${bytesEncrypted} bytes encrypted, ${bytesDecrypted} bytes decrypted: ${text}`,
    {
      event: "ended",
      ...fieldsOf(event),
      seconds: Number(seconds),
      encrypted: bytesEncrypted,
      decrypted: bytesDecrypted,
      reason: text,
      reason_id: reason,
    },
  );
}

/** Returns a description of a connection for the log. */
export function describeConnection({
  number,
  tunnel,
  peer,
  keyName,
  keyFingerprint,
  target,
}: ConnectionEvent): string {
  const parts = [
    tunnel === undefined ? `connection ${number}` : `${tunnel}: connection ${number}`,
    peer === undefined ? "" : `from ${peer}`,
    keyName === undefined || keyFingerprint === undefined ? "" : `with key ${keyName} (${keyFingerprint})`,
    target === undefined ? "" : `to ${target}`,
  ];
  return parts.filter((part) => part !== "").join(" ");
}

/** Returns the same information as fields. */
export function fieldsOf({ number, tunnel, peer, keyName, keyFingerprint, target }: ConnectionEvent): Fields {
  return { tunnel, connection: number, peer, key: keyName, fingerprint: keyFingerprint, target };
}
