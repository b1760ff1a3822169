/** What happens to the daemons of a soak test while connections run: keys, reloads, wrong keys, drains. */
import { randomBytes } from "node:crypto";
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectPlain } from "node:net";
import { join } from "node:path";
import { DAEMON_TIMEOUT } from "./daemons.mjs";
import { follow, isServed, lastConnection, openConnections } from "./patterns.mjs";
import { count, fail, random, sleep, until } from "./report.mjs";
import { dataAt } from "./service.mjs";

// A soak test runs what was built; the linter has no build.
const { connect, Secret } = await import(new URL("../../dist/index.js", import.meta.url).href);

/** Time after SIGHUP from which a client is expected to use its new key, in ms. */
const RELOAD_MS = 5000;

/** Writes a file such that a reader never sees half of it. */
export function writeAtOnce(file, contents) {
  const temporary = join(file, "..", `.${random(0, 2 ** 40)}`);
  writeFileSync(temporary, contents, { mode: 0o600 });
  renameSync(temporary, file);
}

/** Opens an echo with the library, past `spiped -e`. */
async function openDirectly(port, key, options = {}) {
  const socket = await connect({ port, host: "127.0.0.1", key: Secret.fromKeyFile(key), ...options });
  const connection = follow(socket, { pattern: "direct", pair: "", kind: "E", seconds: 600 });
  if (!(await isServed(connection))) throw connection.error ?? new Error("no greeting");
  return connection;
}

/** Opens it as soon as the server has reloaded. */
async function openWhenReloaded(port, key, options) {
  let error;
  let connection;
  await until(async () => {
    connection = await openDirectly(port, key, options).catch((reason) => {
      error = reason;
    });
    return connection !== undefined;
  }, DAEMON_TIMEOUT);
  if (connection === undefined) fail(`direct: a new key or tunnel is not accepted: ${error?.message}`);
  return connection;
}

/** Sends data on an open echo and waits for it. */
async function stillWorks(connection) {
  const size = random(1, 5000);
  const { socket, start, received } = connection;
  socket.write(Buffer.from(dataAt(start, received, size)));
  return until(() => connection.received === received + size, DAEMON_TIMEOUT);
}

async function isRefused(port, key, options) {
  const connection = await openDirectly(port, key, options).catch(() => undefined);
  connection?.socket.destroy();
  return connection === undefined;
}

/**
 * Rotates the key of a pair as an operator does: adds a key to the server's directory, changes it at the client,
 * removes the old one when nothing uses it. Meanwhile a guest's key comes and goes, and so does a tunnel.
 */
export async function rotateKeys(pair, round, reloadMs = RELOAD_MS) {
  const { server, client, directory, clientKey, permanentKey, writeConfiguration } = pair;
  const guestFile = join(directory, `guest.${round}.key`);
  const guestKey = randomBytes(32);
  const next = randomBytes(32);
  const files = [join(directory, `main.${round - 1}.key`), join(directory, `main.${round}.key`)];
  writeAtOnce(files[1], next);
  writeAtOnce(guestFile, guestKey);
  writeConfiguration({ hasExtraTunnel: true });
  server.reload();
  const guest = await openWhenReloaded(pair.wire, guestKey, { localAddress: "127.0.0.20" });
  const extra = await openWhenReloaded(pair.extra, permanentKey);

  writeAtOnce(clientKey, next);
  client.reload();
  await sleep(reloadMs);
  const last = lastConnection();
  const oldOnes = () =>
    [...openConnections.values()].filter(({ id, pair: name }) => name === pair.name && id <= last);
  if (!(await until(() => oldOnes().length === 0, 200))) fail("connections with the old key do not end");

  rmSync(files[0]);
  rmSync(guestFile);
  writeConfiguration({ hasExtraTunnel: false });
  server.reload();
  if (guest !== undefined) {
    if (!(await until(() => guest.socket.closed, DAEMON_TIMEOUT)))
      fail("direct: a removed key's connection stays open");
    if (!(await isRefused(pair.wire, guestKey, { localAddress: "127.0.0.20" })))
      fail("direct: a removed key is accepted");
    count("keys revoked with an open connection");
  }
  if (extra !== undefined) {
    if (!(await until(() => isRefused(pair.extra, permanentKey), DAEMON_TIMEOUT)))
      fail("direct: a removed tunnel accepts");
    if (!(await stillWorks(extra))) fail("direct: a connection of a removed tunnel does not work");
    extra.socket.end();
    await extra.closed;
    if (extra.error !== undefined || !extra.ended)
      fail(`direct: a removed tunnel's connection: ${extra.error}`);
    count("tunnels removed with an open connection");
  }
  count("keys rotated");
}

/** A handshake with random bytes instead of the right ones. */
async function wrongHandshake(port, localAddress) {
  const socket = connectPlain({ port, host: "127.0.0.1", localAddress });
  let bytes = 0;
  socket.on("error", () => {});
  socket.on("data", (chunk) => {
    bytes += chunk.length;
  });
  socket.write(randomBytes(320));
  const isClosed = await until(() => socket.closed, DAEMON_TIMEOUT);
  socket.destroy();
  if (!isClosed) fail("wrong key: a connection stays open");
  if (bytes !== 0 && bytes !== 32) fail(`wrong key: ${bytes} bytes were sent to a client without a key`);
  count("wrong keys");
  if (bytes === 0) count("wrong keys: closed before the nonce");
  return bytes === 0;
}

/** Sends wrong handshakes from one address until it is penalized; other clients must not notice. */
export async function attack(pair, round) {
  while (pair.gate !== undefined) await pair.gate;
  const localAddress = `127.0.0.${30 + (round % 60)}`;
  for (let i = 0; i < 3; i += 1) {
    if (!(await isRefused(pair.wire, randomBytes(32), { localAddress: "127.0.0.9" })))
      fail("wrong key: accepted");
  }
  let penalized = 0;
  for (let left = 1500; left > 0 && penalized < 20 && pair.gate === undefined; left -= 10) {
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, () => wrongHandshake(pair.wire, localAddress)),
    );
    penalized += outcomes.filter(Boolean).length;
  }
  // A drain ends the attack early, and with it the penalty.
  if (pair.gate !== undefined) return;
  // On a busy machine, penalties decay as fast as they add up.
  count(penalized === 0 ? "addresses too slow to be penalized" : "addresses penalized");
}

/**
 * Replaces a daemon by a new process while connections run. Connections that are open, and those in the accept queue
 * of a daemon that clients connect to, must end as if nothing had happened; new ones wait for the new process.
 *
 * @param isBehind - true if clients connect to the daemon through another one: a connection that has not reached it when
 * it stops listening cannot be opened, so the drain waits until all have.
 */
export async function replace(pair, daemon, { isBehind, seconds }) {
  let openGate;
  pair.gate = new Promise((opened) => {
    openGate = opened;
  });
  const here = () => [...openConnections.values()].filter(({ pair: name }) => name === pair.name);
  const isSettled = ({ isEstablished, isConnected }) => (isBehind ? isEstablished : isConnected);
  if (!(await until(() => here().every(isSettled), DAEMON_TIMEOUT)))
    fail(`${daemon.name}: connections do not open`);
  const inFlight = here().map(({ id }) => id);
  const exited = await daemon.drain(seconds);
  await daemon.start();
  pair.gate = undefined;
  openGate();
  const took = await exited();
  if (inFlight.some((id) => openConnections.has(id)))
    fail(`${daemon.name}: connections outlive their daemon`);
  count("connections in flight at a drain", inFlight.length);
  return { daemon: daemon.name, inFlight: inFlight.length, seconds: took };
}
