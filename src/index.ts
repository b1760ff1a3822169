/**
 * The library: connections encrypted with the protocol of `spiped` and `spipe`, for use in Node programs.
 *
 * @example
 * ```ts
 * import { connect, loadKey } from "spiped";
 *
 * const socket = await connect({ host: "mail.example.org", port: 8025, key: await loadKey("/etc/spiped/mail.key") });
 * socket.end("EHLO\r\n");
 * socket.pipe(process.stdout);
 * ```
 *
 * @module
 */

export { SpipedError } from "./errors.ts";
export { type ConnectOptions, connect } from "./library/connect.ts";
export { createServer, type Key, type ServerOptions, SpipedServer } from "./library/create-server.ts";
export { httpAgent } from "./library/http-agent.ts";
export { type LoadKeysOptions, loadKey, loadKeys } from "./library/load-keys.ts";
export { type RedisConnector, redisConnector } from "./library/redis-connector.ts";
export { ConnectError, type ConnectErrorCode } from "./net/connect-error.ts";
export { ResolveError } from "./net/resolve.ts";
export { fingerprint } from "./protocol/fingerprint.ts";
export {
  HandshakeError,
  type HandshakeErrorCode,
  type HandshakePart,
  PacketError,
  type PacketErrorCode,
} from "./protocol/protocol-error.ts";
export { Secret } from "./protocol/secret.ts";
export type { CloseReason } from "./tunnel/close-reason.ts";
export type { ClosedEvent, ConnectionEvent, ConnectionStep, StepEvent } from "./tunnel/connection-event.ts";
export { SpipedSocket } from "./tunnel/spiped-socket.ts";
