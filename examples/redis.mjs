/**
 * Uses Redis through an encrypted pipe with ioredis, without a local daemon.
 *
 *     node examples/redis.mjs server.example.org:16379 spiped.key
 *
 * The server runs `spiped -d -s '[0.0.0.0]:16379' -t '[127.0.0.1]:6379' -k spiped.key`.
 */
import { Redis } from "ioredis";
import { loadKey, redisConnector } from "spiped";

const [target, keyFile] = process.argv.slice(2);
const [, host, port] = /^(.+):(\d+)$/.exec(target ?? "") ?? [];
if (port === undefined) {
  console.error("usage: node examples/redis.mjs SERVER:PORT KEYFILE");
  process.exit(1);
}

const redis = new Redis({
  // ioredis calls the connector for each connection, including reconnects.
  Connector: redisConnector({ host, port: Number(port), key: await loadKey(keyFile) }),
});
await redis.set("greeting", "hello through the pipe");
console.log(await redis.get("greeting"));
await redis.quit();
