/** The programs that are compared: pairs of daemons, the encrypting one in front of the decrypting one. */
import { randomBytes } from "node:crypto";
import { openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { directory, end, freePort, launch, listening, which } from "./processes.mjs";
import { settings } from "./settings.mjs";

export const SPIPED = join(settings.programs, "spiped.cjs");
const PROXY = fileURLToPath(new URL("plain-proxy.mjs", import.meta.url));
export const key = join(directory, "key");
writeFileSync(key, randomBytes(32), { mode: 0o600 });

/** The daemons log here: they report the connections that an ended load generator resets. */
export const logFile = join(directory, "log");
const stdio = ["ignore", "ignore", openSync(logFile, "a")];

export const spipeOf = (maker) =>
  maker === "ours" ? [settings.node, join(settings.programs, "spipe.cjs")] : ["spipe"];

/** @param flags - for Node, if the program is ours. */
export async function startSpiped(maker, mode, target, extra = [], flags = []) {
  const port = await freePort();
  const program = maker === "ours" ? [settings.node, ...flags, SPIPED] : ["spiped"];
  const addresses = ["-s", `[127.0.0.1]:${port}`, "-t", `[127.0.0.1]:${target}`];
  const child = launch([...program, "-F", mode, ...addresses, "-k", key, "-n", "0", ...extra], { stdio });
  await listening(port, child);
  return { child, port };
}

/** A proxy that forwards bytes as they are. */
async function startProxy(target) {
  const port = await freePort();
  const child = launch([settings.node, PROXY, String(port), String(target)], { stdio });
  await listening(port, child);
  return { child, port };
}

/** stunnel with a pre-shared key, so that it authenticates both sides as spiped does. */
async function startStunnel(mode, target) {
  const side = mode === "-e" ? "client" : "server";
  const port = await freePort();
  const secrets = join(directory, "psk");
  writeFileSync(secrets, `bench:${"0123456789abcdef".repeat(4)}\n`, { mode: 0o600 });
  const file = join(directory, `stunnel-${side}.conf`);
  writeFileSync(
    file,
    `foreground = yes\npid =\nsyslog = no\ndebug = err\n[${side}]\nclient = ${side === "client" ? "yes" : "no"}\n` +
      `accept = 127.0.0.1:${port}\nconnect = 127.0.0.1:${target}\nciphers = PSK\nPSKsecrets = ${secrets}\n` +
      (side === "client" ? "PSKidentity = bench\n" : ""),
  );
  const child = launch([which("stunnel4") ?? "stunnel", file], { stdio });
  await listening(port, child);
  return { child, port };
}

function start(maker, mode, target, extra) {
  if (maker === "stunnel") return startStunnel(mode, target);
  if (maker === "plain") return startProxy(target);
  return startSpiped(maker, mode, target, extra);
}

/**
 * Starts a pair in front of the service at `target`.
 *
 * @param kind - `ours`, `c`, `plain`, `stunnel`, or what encrypts and what decrypts: `c-ours`, `ours-c`.
 * @param extra - options of the encrypting and of the decrypting daemon.
 */
async function startPair(kind, target, { encrypting = [], decrypting = [] } = {}) {
  const [front, back = front] = kind.split("-");
  const backend = await start(back, "-d", target, decrypting);
  const frontend = await start(front, "-e", backend.port, encrypting).catch(async (error) => {
    await end(backend.child);
    throw error;
  });
  return {
    port: frontend.port,
    wire: backend.port,
    encrypting: frontend.child.pid,
    decrypting: backend.child.pid,
    end: () => Promise.all([end(frontend.child), end(backend.child)]),
  };
}

/** Runs `work` with a fresh pair. */
export async function withPair(kind, target, work, extra) {
  const pair = await startPair(kind, target, extra);
  try {
    return await work(pair);
  } finally {
    await pair.end();
  }
}
