/**
 * Demo on one machine, run by `npm start`: starts a service, a decrypting daemon in front of it and an encrypting
 * daemon in front of that, and sends data through all three. Runs until Ctrl-C.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const SPIPED = fileURLToPath(new URL("../dist/bin/spiped.cjs", import.meta.url));
const print = (text = "") => process.stdout.write(`${text}\n`);

const directory = mkdtempSync(join(tmpdir(), "spiped-demo-"));
const keyFile = join(directory, "demo.key");
const daemons = [];
process.on("exit", () => {
  for (const daemon of daemons) daemon.kill();
  rmSync(directory, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    print("\nStopped: daemons terminated, key deleted.");
    process.exit(0);
  });
}

/** Starts the service to protect: it echoes data, and answers HTTP requests so that curl shows a page. */
function startService() {
  const service = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    socket.once("data", (first) => {
      if (/^(GET|HEAD) /.test(first.toString("latin1"))) {
        const body = "Hello from the service behind the encrypted pipe.\n";
        socket.end(
          `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
        );
        return;
      }
      socket.write(first);
      socket.pipe(socket);
    });
  });
  return once(service.listen(0, "127.0.0.1"), "listening").then(() => service.address().port);
}

/** Returns a port that is currently unused. */
async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/** Starts a daemon in the foreground; resolves when its log reports that it is listening. */
async function startSpiped(...args) {
  const daemon = spawn(process.execPath, [SPIPED, "-F", "--log-level", "info", ...args], {
    stdio: ["ignore", "inherit", "pipe"],
  });
  daemons.push(daemon);
  daemon.on("exit", (status) => {
    if (status !== 0 && status !== null) {
      print(`spiped ${args.join(" ")} exited with status ${status}`);
      process.exit(1);
    }
  });
  const log = createInterface({ input: daemon.stderr });
  await new Promise((resolve) => {
    log.on("line", (line) => {
      if (/^spiped: listening on /.test(line)) resolve();
      else if (!/^spiped: (starting|connection .* (opened|ended))\b/.test(line)) print(line);
    });
  });
}

/** Sends `data`, half-closes, and returns the response. */
async function roundTrip(port, data) {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const received = [];
  socket.on("data", (chunk) => received.push(chunk));
  socket.end(data);
  await once(socket, "end");
  return Buffer.concat(received);
}

/** Records the data that a client sends to `target` during `send`, to show what an eavesdropper sees. */
async function eavesdrop(target, send) {
  const seen = [];
  const tap = createServer((client) => {
    const server = connect(target, "127.0.0.1");
    client.on("data", (chunk) => seen.push(chunk));
    client.pipe(server).pipe(client);
    for (const socket of [client, server]) socket.on("error", () => {});
  }).listen(0, "127.0.0.1");
  await once(tap, "listening");
  await send(tap.address().port);
  tap.close();
  return Buffer.concat(seen);
}

writeFileSync(keyFile, randomBytes(32), { mode: 0o600 });
const service = await startService();
const encryptedPort = await freePort();
const plaintextPort = await freePort();

print("spiped: an encrypted pipe on this machine\n");
print(`1. key       32 random bytes in ${keyFile}`);
print(`2. service   echo server on 127.0.0.1:${service}`);
await startSpiped("-d", "-s", `[127.0.0.1]:${encryptedPort}`, "-t", `[127.0.0.1]:${service}`, "-k", keyFile);
print(`3. server    spiped -d -s '[127.0.0.1]:${encryptedPort}' -t '[127.0.0.1]:${service}' -k demo.key`);
await startSpiped(
  "-e",
  "-s",
  `[127.0.0.1]:${plaintextPort}`,
  "-t",
  `[127.0.0.1]:${encryptedPort}`,
  "-k",
  keyFile,
);
print(
  `4. client    spiped -e -s '[127.0.0.1]:${plaintextPort}' -t '[127.0.0.1]:${encryptedPort}' -k demo.key\n`,
);

const message = "attack at dawn\n";
const reply = await roundTrip(plaintextPort, message);
if (reply.toString() !== message)
  throw new Error(`sent ${JSON.stringify(message)}, got ${JSON.stringify(String(reply))}`);
print(`Sent ${JSON.stringify(message)} through both daemons; the service echoed it unchanged.`);

const megabytes = randomBytes(8 * 1024 * 1024);
const back = await roundTrip(plaintextPort, megabytes);
if (!back.equals(megabytes)) throw new Error("8 MiB of random data came back changed");
print("Sent 8 MiB of random data the same way; the echo was identical.");

const tapped = await eavesdrop(encryptedPort, async (port) => {
  const { connect: open, loadKey } = await import("../dist/index.js");
  const socket = await open({ host: "127.0.0.1", port, key: await loadKey(keyFile) });
  socket.end(message);
  await socket.resume();
  await once(socket, "end");
});
if (tapped.includes(message.trim())) throw new Error("the message was readable between the daemons");
const packet = tapped.subarray(320);
print(
  `Between the daemons, the message is a packet of ${packet.length} bytes: ${packet.subarray(0, 12).toString("hex")}...\n`,
);

print("Running until you press Ctrl-C. In another terminal, try:\n");
print(`    curl http://127.0.0.1:${plaintextPort}/`);
print(`    nc 127.0.0.1 ${plaintextPort}          (each line is echoed)`);
print(`    node dist/bin/spipe.cjs -t '[127.0.0.1]:${encryptedPort}' -k ${keyFile}\n`);
