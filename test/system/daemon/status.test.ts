/** The status address: floods, requests by web pages and other machines, and the state of tunnels and workers. */
import { once } from "node:events";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { readExposition } from "../../support/exposition.ts";
import { ask, askRaw } from "../../support/http.ts";
import {
  cleanUp,
  commandOf,
  connectTo,
  type Family,
  freeAddress,
  keyFile,
  run,
  start,
  startSpiped,
  type TestAddress,
  temporaryDirectory,
  until,
  untilListening,
} from "../../support/programs.ts";
import { inNamespace } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { startEcho } from "../../support/servers.ts";
import { descriptors } from "../../support/sockets.ts";

const TOKEN = "0123456789abcdef0123456789abcdef";

/** Starts a daemon with a status address. */
async function startDaemon(family: Family, ...options: string[]) {
  const status = await freeAddress(family);
  const [source, target] = [await freeAddress(), (await startEcho()).address];
  const daemon = await startSpiped(
    "ours",
    "-d",
    source,
    target,
    keyFile(),
    "--metrics",
    status.text,
    ...options,
  );
  return { status, daemon };
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

describe("the status address", () => {
  it.each([
    ["IPv4", []],
    ["UNIX", []],
    ["IPv4", ["--workers", "2"]],
  ] as const)("responds during a flood of connections (%s %j)", async (family, options) => {
    const { status, daemon } = await startDaemon(family, ...options);
    expect((await ask(status, "/metrics")).status).toBe(200);
    const before = descriptors(daemon.pid);
    const place = "path" in status.connect ? status.connect.path : String(status.connect.port);
    const flood = start([process.execPath, resolve("test/support/status-flood.mjs"), place]);
    await until(() => String(flood.stdout()) === "ready\n");
    for (let i = 0; i < 10; i += 1) {
      expect(await ask(status, "/healthz")).toMatchObject({ status: 200, body: "ok\n" });
      expect(await ask(status, "/readyz")).toMatchObject({ status: 200, body: "ready\n" });
      expect(await ask(status, "/metrics")).toMatchObject({ status: 200 });
      expect(descriptors(daemon.pid) - before).toBeLessThanOrEqual(258);
    }
  });

  it.each([
    ["is idle", "", ""],
    ["sends half a request", "GET /healthz HTTP/1.1\r\nHost: ", ""],
    ["keeps sending headers", "GET /healthz HTTP/1.1\r\n", "X: y\r\n"],
  ])("closes a connection that %s", async (_what, first, then) => {
    const { status } = await startDaemon("IPv4");
    const socket = await connectTo(status);
    socket.write(first);
    const beat = setInterval(() => socket.write(then), 100);
    cleanUp(() => clearInterval(beat));
    socket.resume();
    await Promise.race([once(socket, "close"), once(socket, "end")]);
  });

  it("responds to one request per connection", async () => {
    const { status } = await startDaemon("IPv4");
    const one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    expect(await askRaw(status, one)).toMatch(
      /^HTTP\/1.1 200 OK\r\n[\s\S]*connection: close\r\n[\s\S]*ok\n$/i,
    );
    const old = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    for (const request of [one, old]) {
      const answers = await askRaw(status, request.repeat(1000)).catch(() => "");
      expect(answers.match(/^HTTP/gm) ?? []).toHaveLength(answers === "" ? 0 : 1);
    }
    expect((await ask(status, "/healthz")).status).toBe(200);
  });

  it("accepts requests without a Host header, and for any host over a UNIX socket", async () => {
    const names = ["--metrics-host", "metrics.example.org", "--metrics-host", "spiped"];
    const { status: tcp } = await startDaemon("IPv4", ...names);
    expect(await askRaw(tcp, "GET /healthz HTTP/1.0\r\n\r\n")).toContain("HTTP/1.1 200 OK");
    for (const [host, expected] of [
      ["spiped", 200],
      ["metrics.example.org", 200],
      ["evil.example", 421],
    ] as const) {
      expect((await ask(tcp, "/healthz", { headers: { host } })).status).toBe(expected);
    }
    const { status: unix } = await startDaemon("UNIX");
    expect((await ask(unix, "/healthz", { headers: { host: "evil.example" } })).status).toBe(200);
  });
});

describe("--metrics-host", () => {
  it.each(["spiped:9464", "[::1]", "http://spiped", "", "*"])("accepts names, but not %s", async (name) => {
    const args = ["-d", "-s", "/s", "-t", "/t", "-k", "/k", "--metrics", "/m", "--metrics-host", name];
    expect(await run([...commandOf("ours", "spiped"), ...args])).toMatchObject({
      status: 1,
      stderr: `spiped: --metrics-host must be a host name without a port, not ${name || "an empty value"}\n`,
    });
  });
});

describe("options that depend on --metrics", () => {
  it.each([["--metrics-public"], ["--metrics-host", "spiped"], ["--metrics-token-file", "/token"]])(
    "are rejected without it: %s",
    async (...options) => {
      const args = ["-d", "-s", "/s", "-t", "/t", "-k", "/k", ...options];
      const { status, stderr } = await run([...commandOf("ours", "spiped"), ...args]);
      expect(status).toBe(1);
      expect(stderr).toMatch(new RegExp(`spiped: ${options[0]} requires --metrics\n$`));
    },
  );
});

describe("--metrics-token-file", () => {
  const tokenFile = (contents: string) => {
    const file = join(temporaryDirectory(), "token");
    writeFileSync(file, contents, { mode: 0o600 });
    return file;
  };

  it("is required for metrics and the page, but not for a one-word health status", async () => {
    const file = tokenFile(`${TOKEN}\n`);
    const { status, daemon } = await startDaemon("IPv4", "--metrics-token-file", file);
    for (const path of ["/", "/metrics"]) {
      expect(await ask(status, path)).toMatchObject({
        status: 401,
        body: "a bearer token is required\n",
        headers: { "www-authenticate": 'Bearer realm="spiped"' },
      });
      for (const wrong of ["", TOKEN.slice(1), `${TOKEN}0`, `${TOKEN} ${TOKEN}`, TOKEN.toUpperCase()])
        expect((await ask(status, path, bearer(wrong))).status).toBe(401);
      expect((await ask(status, path, { headers: { authorization: `Basic ${TOKEN}` } })).status).toBe(401);
      expect((await ask(status, path, bearer(TOKEN))).status).toBe(200);
      expect((await ask(status, path, { headers: { authorization: `bearer  ${TOKEN}` } })).status).toBe(200);
    }
    expect(await ask(status, "/healthz")).toMatchObject({ status: 200, body: "ok\n" });
    expect(await ask(status, "/readyz")).toMatchObject({ status: 200, body: "ready\n" });
    expect(daemon.stderr()).toBe("");
  });

  it("is re-read on SIGHUP; an invalid token leaves the previous one active", async () => {
    const file = tokenFile(TOKEN);
    const { status, daemon } = await startDaemon("IPv4", "--metrics-token-file", file, "--log-level", "info");
    const next = "another token, with blanks".replaceAll(" ", "-");
    writeFileSync(file, next);
    process.kill(daemon.pid, "SIGHUP");
    await until(async () => (await ask(status, "/metrics", bearer(next))).status === 200);
    expect((await ask(status, "/metrics", bearer(TOKEN))).status).toBe(401);
    writeFileSync(file, "short");
    process.kill(daemon.pid, "SIGHUP");
    await until(() => daemon.stderr().includes("reload failed"));
    expect((await ask(status, "/metrics", bearer(next))).status).toBe(200);
    expect(daemon.stderr()).not.toContain(next);
    expect(daemon.stderr()).not.toContain("short");
  });

  it.each([
    ["an empty token", ""],
    ["a short token", "0123456789abcde\n"],
    ["two lines", `${TOKEN}\n${TOKEN}\n`],
    ["a token that is not ASCII", "0123456789abcdéf"],
    ["a large file", "x".repeat(5000)],
  ])("rejects %s", async (_what, contents) => {
    const file = tokenFile(contents);
    const args = ["-F", "-d", "-s", "/s", "-t", "/t", "-k", keyFile(), "--metrics", "/m"];
    expect(await run([...commandOf("ours", "spiped"), ...args, "--metrics-token-file", file])).toMatchObject({
      status: 1,
      stderr: `spiped: token file ${file} must contain one line of at least 16 visible ASCII characters; create one with openssl rand -hex 32\n`,
    });
  });

  it("reports a missing file and a world-readable one", async () => {
    const args = ["-F", "-d", "-s", "/s", "-t", "/t", "-k", keyFile(), "--metrics", "/m"];
    expect(
      await run([...commandOf("ours", "spiped"), ...args, "--metrics-token-file", "/nowhere/token"]),
    ).toMatchObject({
      status: 1,
      stderr: "spiped: cannot read the token file /nowhere/token: No such file or directory\n",
    });
    const file = tokenFile(TOKEN);
    chmodSync(file, 0o644);
    const { daemon } = await startDaemon("IPv4", "--metrics-token-file", file);
    expect(daemon.stderr()).toBe(`spiped: token file ${file} is world-readable; run chmod 600 ${file}\n`);
  });
});

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "curl",
)("an address that other machines can reach", () => {
  it("requires --metrics-public, and a token to start without a warning", async () => {
    const output = await inNamespace(`
      ip addr add 192.0.2.7/32 dev lo
      printf ${TOKEN} > token; chmod 600 token
      daemon="spiped -F -d -s [127.0.0.1]:8002 -t [127.0.0.1]:8003 -k spiped.key"
      ! $daemon --metrics '[0.0.0.0]:9464'
      $daemon --metrics '[0.0.0.0]:9464' --metrics-public 2> open.log &
      pid=$!
      listening 8002; listening 9464
      # The requests of kubelet and Prometheus, and of a web page after DNS rebinding.
      curl -fsS http://192.0.2.7:9464/healthz
      grep -q '^# TYPE spiped_connections gauge' <<< "$(curl -fsS http://192.0.2.7:9464/metrics)"
      curl -sS -o /dev/null -w 'foreign host: %{http_code}\\n' --connect-to ::192.0.2.7: http://evil.example:9464/
      kill $pid; wait $pid
      cat open.log
      $daemon --metrics '[192.0.2.7]:9464' --metrics-public --metrics-token-file token 2> closed.log &
      listening 8002; listening 9464
      curl -fsS http://192.0.2.7:9464/healthz
      curl -sS -o /dev/null -w 'no token: %{http_code}\\n' http://192.0.2.7:9464/metrics
      grep -q '^# TYPE' <<< "$(curl -fsS -H 'Authorization: Bearer ${TOKEN}' http://192.0.2.7:9464/metrics)"
      cat closed.log
      echo all done
    `);
    expect(output).toBe(`\
spiped: cannot serve metrics on [0.0.0.0]:9464: neither a loopback address nor a UNIX socket; allow it with --metrics-public
ok
foreign host: 421
spiped: --metrics [0.0.0.0]:9464 requires no token: anyone who can connect can read the metrics and the status page; set one with --metrics-token-file
ok
no token: 401
all done
`);
  });
});

describe("/readyz", () => {
  it("names the tunnels that are not ready, and has a path for each tunnel", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const [first, second, refusing, status] = [
      await freeAddress(),
      await freeAddress(),
      await freeAddress(),
      await freeAddress(),
    ];
    const file = join(temporaryDirectory(), "spiped.toml");
    const tunnel = (name: string, source: TestAddress, target: TestAddress) =>
      `[tunnels.${name}]\ndecrypt = true\nsource = "${source.text}"\ntarget = "${target.text}"\nkey = "${key}"\n`;
    writeFileSync(file, tunnel("mail", first, echo.address) + tunnel('"the cache"', second, refusing));
    const command = [...commandOf("ours", "spiped"), "-F", "--config", file, "--metrics", status.text];
    const daemon = start(command);
    await untilListening(daemon, second);
    expect(await ask(status, "/readyz")).toMatchObject({ status: 200, body: "ready\n" });
    await run([...commandOf("ours", "spipe"), "-t", second.text, "-k", key]);
    await until(async () => (await ask(status, "/readyz")).status === 503);
    expect((await ask(status, "/readyz")).body).toBe("the cache: target unreachable\n");
    expect(await ask(status, "/readyz/mail")).toMatchObject({ status: 200, body: "ready\n" });
    expect(await ask(status, "/readyz/the%20cache")).toMatchObject({
      status: 503,
      body: "the cache: target unreachable\n",
    });
    for (const unknown of ["/readyz/", "/readyz/redis", "/readyz/%", "/readyz/mail/x", "/readyz/default"])
      expect((await ask(status, unknown)).status).toBe(404);
    expect((await ask(status, "/")).body).toContain("· the cache: target unreachable</h1>");
  });

  it("has the name default for the tunnel of a command line", async () => {
    const { status } = await startDaemon("IPv4");
    expect(await ask(status, "/readyz/default")).toMatchObject({ status: 200, body: "ready\n" });
  });
});

describe("/metrics", () => {
  it.each([[[]], [["--workers", "2"]]])("is valid exposition format (%j)", async (options) => {
    const { status, daemon } = await startDaemon("IPv4", ...options);
    // A worker that is still starting does not respond.
    await until(async () => !/^spiped_worker_up.* 0$/m.test((await ask(status, "/metrics")).body));
    const { body, headers } = await ask(status, "/metrics");
    const series = readExposition(body);
    expect(headers["content-type"]).toBe("text/plain; version=0.0.4; charset=utf-8");
    const up = [...series].filter(([name]) => name.startsWith("spiped_worker_up"));
    expect(up).toHaveLength(options.length);
    for (const [name, value] of up) {
      expect(value).toBe(1);
      const pid = /pid="(\d+)"/.exec(name)![1];
      expect(readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]!.split(" ")[1]).toBe(
        String(daemon.pid),
      );
    }
  });
});
