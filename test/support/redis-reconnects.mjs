/** Makes redis close the connection of an ioredis client, which must reconnect by itself. */
import { strictEqual } from "node:assert";
import { once } from "node:events";
import { Redis } from "ioredis";
import { loadKey, redisConnector } from "spiped";

const [host, port, keyFile] = process.argv.slice(2);
const redis = new Redis({
  Connector: redisConnector({ host, port: Number(port), key: await loadKey(keyFile) }),
  retryStrategy: () => 10,
});
await redis.set("before", "1");
const id = await redis.client("ID");
const closed = once(redis, "close");
const killer = redis.duplicate();
strictEqual(await killer.client("KILL", "ID", id), 1);
await closed;
strictEqual(await redis.get("before"), "1");
await Promise.all([redis.quit(), killer.quit()]);
