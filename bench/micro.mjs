/**
 * The protocol alone, without sockets: sealing and opening 64 KiB, and both sides of a handshake, on both engines.
 *
 *     node bench/micro.mjs [--json ENGINE]       --json: MB/s of sealing with one engine, for run.mjs
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { bench, run, summary } from "mitata";

const directory = mkdtempSync(join(tmpdir(), "spiped-micro-"));
const bundle = join(directory, "protocol.mjs");
await build({
  stdin: {
    contents: `
      export { createNativeEngine } from "./src/protocol/engine/native.ts";
      export { portableEngine } from "./src/protocol/engine/portable.ts";
      export { Sealer } from "./src/protocol/sealer.ts";
      export { Opener } from "./src/protocol/opener.ts";
      export { ClientHandshake, ServerHandshake } from "./src/protocol/handshake.ts";
      export { Secret } from "./src/protocol/secret.ts";`,
    resolveDir: process.cwd(),
  },
  bundle: true,
  platform: "node",
  format: "esm",
  outfile: bundle,
});
const protocol = await import(pathToFileURL(bundle).href);
rmSync(directory, { recursive: true });

const DATA = 64 * 1024;
const WIRE = 64 * 1060;
const keys = () => ({ encrypt: randomBytes(32), mac: randomBytes(32) });
const data = randomBytes(DATA);
const engines = { native: protocol.createNativeEngine(), portable: protocol.portableEngine };

/** Seals the same data again and again. */
function sealing(engine) {
  const sealer = new protocol.Sealer(engine, keys());
  const out = Buffer.alloc(WIRE);
  return () => sealer.seal(data, out);
}

/** Opens what was sealed ahead of time, packet numbers in order; a fresh opener when that is used up. */
function opening(engine) {
  const session = keys();
  const batches = 64;
  const sealer = new protocol.Sealer(engine, { encrypt: session.encrypt.slice(), mac: session.mac.slice() });
  const sealed = Array.from({ length: batches }, () => {
    const out = Buffer.alloc(WIRE);
    sealer.seal(data, out);
    return out;
  });
  const out = Buffer.alloc(DATA + 1024);
  let opener;
  let next = batches;
  return () => {
    if (next === batches) {
      opener?.destroy();
      opener = new protocol.Opener(engine, { encrypt: session.encrypt.slice(), mac: session.mac.slice() });
      next = 0;
    }
    if (opener.open(sealed[next++], out) !== DATA) throw new Error("a packet was rejected");
  };
}

function handshake() {
  const secret = protocol.Secret.fromKeyFile(randomBytes(32));
  return () => {
    const client = new protocol.ClientHandshake(secret);
    const server = new protocol.ServerHandshake([secret]);
    server.receive(client.nonce);
    const { send } = client.receive(server.nonce);
    server.receive(send);
    const answer = server.respond();
    const { session } = client.receive(answer.send);
    session.destroy();
    answer.session.destroy();
  };
}

if (process.argv.includes("--json")) {
  const work = sealing(engines[process.argv.at(-1)]);
  for (const end = performance.now() + 300; performance.now() < end; ) work();
  const start = performance.now();
  let count = 0;
  for (const end = start + 1000; performance.now() < end; count += 1) work();
  const rate = (count * DATA) / 1e6 / ((performance.now() - start) / 1000);
  console.log(JSON.stringify({ rate }));
} else {
  for (const [name, engine] of Object.entries(engines)) {
    summary(() => {
      bench(`seal 64 KiB, ${name} engine`, sealing(engine));
      bench(`open 64 KiB, ${name} engine`, opening(engine));
    });
  }
  bench("handshake, both sides", handshake());
  await run();
}
