/**
 * Returns one end of a connection as `ADDRESS:PORT`.
 *
 * @param address - undefined over a UNIX socket; over TCP, once the peer has reset the connection.
 * @param kind - of the socket.
 */
export function formatEndpoint(
  address: string | undefined,
  port: number | undefined,
  kind: "tcp" | "unix" = "unix",
): string {
  if (address === undefined || port === undefined) return kind === "unix" ? "unix" : "unknown";
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
