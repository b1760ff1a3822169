/**
 * A proxy without cryptography, which shows what Node itself costs:
 *
 *     node bench/plain-proxy.mjs PORT TARGET-PORT
 */
import { connect, createServer } from "node:net";

const [port, target] = process.argv.slice(2).map(Number);
createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
  const service = connect({ port: target, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
  for (const [source, sink] of [
    [client, service],
    [service, client],
  ]) {
    source.on("error", () => sink.destroy());
    source.pipe(sink);
  }
}).listen(port, "127.0.0.1", 4096);
