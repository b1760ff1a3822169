/** Logs each connection that opens and each that closes, at level `info`. */
import type { ConnectionInfo, Observer } from "./events.ts";
import type { Fields, Log } from "./log.ts";

/** Returns an observer that logs each connection's client, key, target, duration, bytes and close reason. */
export function connectionLog(log: Log): Observer {
  return {
    opened(connection) {
      log.info(`${describeConnection(connection)} opened`, { event: "opened", ...fieldsOf(connection) });
    },
    closed(connection, reason) {
      const { bytesEncrypted: sealed, bytesDecrypted: opened } = connection.traffic;
      const seconds = (performance.now() - connection.acceptedAt) / 1000;
      log.info(
        `${describeConnection(connection)} ended after ${seconds.toFixed(3)} s, ` +
          `${sealed} bytes encrypted, ${opened} bytes decrypted: ${reason}`,
        {
          event: "ended",
          ...fieldsOf(connection),
          seconds: Number(seconds.toFixed(3)),
          encrypted: sealed,
          decrypted: opened,
          reason,
        },
      );
    },
  };
}

/** Returns a description of a connection for the log. */
export function describeConnection({
  id,
  tunnel,
  peer,
  keyName,
  keyFingerprint,
  target,
}: ConnectionInfo): string {
  const parts = [
    tunnel === undefined ? `connection ${id}` : `${tunnel}: connection ${id}`,
    `from ${peer}`,
    keyName === undefined ? "" : `with key ${keyName} (${keyFingerprint})`,
    target === undefined ? "" : `to ${target}`,
  ];
  return parts.filter((part) => part !== "").join(" ");
}

/** Returns the same information as fields. */
export function fieldsOf({ id, tunnel, peer, keyName, keyFingerprint, target }: ConnectionInfo): Fields {
  return { tunnel, connection: id, peer, key: keyName, fingerprint: keyFingerprint, target };
}
