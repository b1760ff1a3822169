/** Metrics, health and the status page. */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { fingerprint } from "../../../src/protocol/fingerprint.ts";
import { Secret } from "../../../src/protocol/secret.ts";
import { ask } from "../../support/http.ts";
import {
  commandOf,
  connectTo,
  freeAddress,
  keyFile,
  run,
  start,
  startSpiped,
  temporaryDirectory,
  until,
} from "../../support/programs.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, startEcho } from "../../support/servers.ts";

/** Starts a daemon with metrics, and Tarsnap's client in front of it. */
async function withMetrics(family: "IPv4" | "UNIX", ...options: string[]) {
  const key = keyFile();
  const echo = await startEcho();
  const wire = await freeAddress();
  const metrics = await freeAddress(family);
  const daemon = await startSpiped(
    "ours",
    "-d",
    wire,
    echo.address,
    key,
    "--metrics",
    metrics.text,
    ...options,
  );
  const plain = await freeAddress();
  await startSpiped("c", "-e", plain, wire, key);
  return { key, echo, wire, plain, metrics, daemon };
}

describeIfInstalled("spiped", "spipe")("--metrics", () => {
  it.each([
    ["one process", []],
    ["two workers", ["--workers", "2"]],
  ] as const)("counts connections, bytes and failures of %s", async (_name, options) => {
    const { wire, plain, metrics } = await withMetrics("IPv4", ...options);
    for (let i = 0; i < 4; i += 1) await exchange(plain, Buffer.alloc(1000));
    for (let i = 0; i < 3; i += 1) {
      await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", keyFile()]);
    }
    const held = await connectTo(plain);
    held.write("x");
    let text = "";
    await until(async () => {
      text = (await ask(metrics, "/metrics")).body;
      return /key="default",direction="encrypted"\} 4001$/m.test(text);
    });
    const value = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
    expect(value('spiped_connections_total\\{tunnel="default"\\}')).toBe(8);
    expect(value('spiped_handshake_failures_total\\{tunnel="default",reason="handshake: wrong key"\\}')).toBe(
      3,
    );
    expect(value('spiped_bytes_total\\{tunnel="default",key="default",direction="decrypted"\\}')).toBe(4001);
    expect(value('spiped_bytes_total\\{tunnel="default",key="default",direction="encrypted"\\}')).toBe(4001);
    expect(value('spiped_handshake_seconds_count\\{tunnel="default"\\}')).toBe(5);
    expect(text).toContain("nodejs_eventloop_lag_p99_seconds");
  });

  it.each([[], ["--workers", "2"]])("has series for each key of a client (%s %s)", async (...options) => {
    const keys = temporaryDirectory();
    for (const file of ["alice.key", "alice.2027.key", "bob.key"])
      writeFileSync(join(keys, file), randomBytes(32), { mode: 0o600 });
    const echo = await startEcho();
    const [wire, metrics] = [await freeAddress(), await freeAddress()];
    await startSpiped("ours", "-d", wire, echo.address, keys, "--metrics", metrics.text, ...options);
    const held = start([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, "alice.key")]);
    held.child.stdin!.write("x");
    await until(() => held.stdout().length === 1);
    for (let i = 0; i < 2; i += 1)
      await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", join(keys, "alice.2027.key")], "x");
    const labels = (file: string) => {
      const print = fingerprint(Secret.fromKeyFile(readFileSync(join(keys, file))));
      return `tunnel="default",key="${file.split(".")[0]}",fingerprint="${print}"`;
    };
    const { body } = await ask(metrics, "/metrics");
    expect(body).toContain(`spiped_key_connections_total{${labels("alice.key")}} 1\n`);
    expect(body).toContain(`spiped_key_connections_total{${labels("alice.2027.key")}} 2\n`);
    expect(body).not.toContain("bob");
    expect(body).toContain(`spiped_connections{${labels("alice.key")},state="open"} 1\n`);
  });

  it("listens on a UNIX socket, and removes it at exit", async () => {
    const { metrics, daemon } = await withMetrics("UNIX");
    expect(await ask(metrics, "/healthz")).toMatchObject({ status: 200, body: "ok\n" });
    expect((await ask(metrics, "/nothing")).status).toBe(404);
    expect((await ask(metrics, "/metrics", { method: "POST" })).status).toBe(405);
    process.kill(daemon.pid, "SIGTERM");
    await daemon.ended;
    expect(existsSync(metrics.text)).toBe(false);
  });

  it("reports not ready while the target is unreachable and during a drain", async () => {
    const { echo, wire, key, plain, metrics, daemon } = await withMetrics("IPv4");
    expect(await ask(metrics, "/readyz")).toMatchObject({ status: 200, body: "ready\n" });
    await new Promise((closed) => echo.server.close(closed));
    await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key]);
    await until(async () => (await ask(metrics, "/readyz")).status === 503);
    expect((await ask(metrics, "/readyz")).body).toBe("target unreachable\n");
    expect((await ask(metrics, "/healthz")).status).toBe(200);
    echo.server.listen(echo.address.connect);
    await until(async () => (await ask(metrics, "/readyz")).status === 200);

    const held = await connectTo(plain);
    held.write("x");
    await new Promise((readable) => held.once("readable", readable));
    process.kill(daemon.pid, "SIGTERM");
    await until(async () => (await ask(metrics, "/readyz")).body === "draining\n");
    held.end();
    expect((await daemon.ended).status).toBe(0);
  });

  it("requires a loopback address unless --metrics-public is given", async () => {
    const args = ["-F", "-d", "-s", (await freeAddress()).text, "-t", "[127.0.0.1]:1", "-k", keyFile()];
    const { status, stderr } = await run([
      ...commandOf("ours", "spiped"),
      ...args,
      "--metrics",
      "[0.0.0.0]:9464",
    ]);
    expect(status).toBe(1);
    expect(stderr).toBe(
      "spiped: cannot serve metrics on [0.0.0.0]:9464: neither a loopback address nor a UNIX socket; allow it with --metrics-public\n",
    );
  });
});

describeIfInstalled("w3m", "spiped")("the status page", () => {
  it("shows each tunnel in a text browser", async () => {
    const { plain, metrics } = await withMetrics("IPv4");
    await exchange(plain, Buffer.alloc(3_000_000));
    const page = (await ask(metrics, "/")).body;
    expect(page).toContain("<h1>spiped <small>");
    expect(page).toMatch(
      /<td>default<\/td><td>0<\/td><td>0<\/td><td>0<\/td><td>1<\/td><td>0<\/td><td>3\.0 MB<\/td>/,
    );
    expect(page).toContain("<svg");
    const url = `http://127.0.0.1:${(metrics.connect as { port: number }).port}/`;
    const { stdout } = await run(["w3m", "-dump", "-cols", "120", url], "", {
      env: { ...process.env, HOME: temporaryDirectory() },
    });
    expect(stdout.toString()).toMatch(/^tunnel +open +waiting +unauthenticated +accepted +failed /m);
    expect(stdout.toString()).toMatch(/^default +0 +0 +0 +1 +0 +3\.0 MB +3\.0 MB$/m);
  });
});
