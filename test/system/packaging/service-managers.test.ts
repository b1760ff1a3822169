/** Service managers and deployment files: systemd, Kubernetes, compose, containers, Grafana. */
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { ask } from "../../support/http.ts";
import {
  commandOf,
  freeAddress,
  keyFile,
  run,
  start,
  temporaryDirectory,
  untilListening,
} from "../../support/programs.ts";
import { inNamespace } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { startEcho } from "../../support/servers.ts";

describeIfInstalled("systemd-analyze")("the systemd units", () => {
  /** Copies the units for an instance, with the path of the built spiped. */
  function units(): { service: string; socket: string } {
    const directory = temporaryDirectory();
    const place = (kind: string) => {
      const text = readFileSync(`deploy/systemd/spiped@.${kind}`, "utf8");
      const file = join(directory, `spiped@mail.${kind}`);
      writeFileSync(file, text.replaceAll("/usr/local/bin/spiped", resolve("dist/bin/spiped.cjs")));
      return file;
    };
    return { service: place("service"), socket: place("socket") };
  }

  it("pass systemd-analyze verify", async () => {
    const { service, socket } = units();
    const { status, stderr } = await run(["systemd-analyze", "verify", service, socket]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  });

  it("have an exposure level below 2.5", async () => {
    const { service } = units();
    const { stdout } = await run(["systemd-analyze", "security", "--offline=true", "--no-pager", service]);
    const [, score] = /Overall exposure level for spiped@mail.service: ([\d.]+)/.exec(stdout.toString())!;
    expect(Number(score)).toBeLessThan(2.5);
  });

  it("run spiped with valid arguments", async () => {
    const [, command] = /^ExecStart=\S+ (.*)$/m.exec(readFileSync("deploy/systemd/spiped@.service", "utf8"))!;
    const { readArguments } = await import("../../../src/cli/spiped-arguments.ts");
    expect(await readArguments(command!.split(" "))).toMatchObject({
      action: "serve",
      config: { file: "/etc/spiped/%i.toml" },
    });
  });
});

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "socat",
  "spiped",
  "systemd-notify",
  "systemd-socket-activate",
)("under systemd's protocols", () => {
  it("the daemon notifies systemd when it is ready, reloads and stops", { timeout: 30_000 }, async () => {
    const output = await inNamespace(`
      socat -u UNIX-RECV:$PWD/notify,unlink-early CREATE:said &
      until test -S notify; do sleep 0.02; done
      NOTIFY_SOCKET=$PWD/notify spiped -F -d -s '[127.0.0.1]:8002' -t '[127.0.0.1]:1' -k spiped.key &
      daemon=$!
      said() { until grep -q "$1" said; do sleep 0.02; done; }
      said READY=1
      ss -ltnH 'sport = :8002' | grep -q .
      kill -HUP $daemon
      said RELOADING=1
      until test $(grep -c READY=1 said) = 2; do sleep 0.02; done
      kill $daemon
      said STOPPING=1
      wait $daemon
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
  });

  it("the daemon uses inherited sockets, and serves the client whose connection started it", {
    timeout: 30_000,
  }, async () => {
    const output = await inNamespace(`
      socat TCP-LISTEN:8003,fork,reuseaddr EXEC:cat &
      # A port other than that of -s: the socket is inherited from the service manager.
      systemd-socket-activate -l 127.0.0.1:8002 \\
        $PWD/spiped -F -d -s '[127.0.0.1]:9' -t '[127.0.0.1]:8003' -k spiped.key 2> log &
      daemon=$!
      listening 8002
      # The first client's connection starts the daemon.
      test "$(echo hello | /usr/bin/spipe -t '[127.0.0.1]:8002' -k spiped.key)" = hello
      test "$(echo again | /usr/bin/spipe -t '[127.0.0.1]:8002' -k spiped.key)" = again
      ! ss -ltnH 'sport = :9' | grep -q .
      kill $daemon; wait $daemon
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
  });
});

describe("the Kubernetes manifests", () => {
  it.each(["deployment", "sidecar"])("%s.yaml conforms to the published schemas", async (name) => {
    const documents = parseAllDocuments(readFileSync(`deploy/kubernetes/${name}.yaml`, "utf8"));
    expect(documents.length).toBeGreaterThan(0);
    for (const document of documents) {
      expect(document.errors).toEqual([]);
      const manifest = document.toJS() as { apiVersion: string; kind: string };
      const models = await import(
        /* @vite-ignore */ `kubernetes-models/${manifest.apiVersion}/${manifest.kind}`
      );
      const model = new models[manifest.kind](manifest);
      expect(() => model.validate()).not.toThrow();
      // The validator does reject an invalid manifest.
      expect(() =>
        new models[manifest.kind]({ ...manifest, metadata: { labels: [1] } }).validate(),
      ).toThrow();
    }
  });

  it.each(["deployment", "sidecar"])("%s.yaml contains no key, and requires a secret", (name) => {
    const text = readFileSync(`deploy/kubernetes/${name}.yaml`, "utf8");
    const manifests = parseAllDocuments(text).map((document) => document.toJS());
    expect(manifests.map(({ kind }) => kind)).not.toContain("Secret");
    const pods = manifests.map(({ spec }) => spec?.template?.spec ?? spec);
    const secrets = pods.flatMap((pod) => pod?.volumes ?? []).map(({ secret }) => secret);
    expect(secrets).toHaveLength(1);
    expect(secrets[0].optional).toBeUndefined();
    expect(text).toContain(`#   kubectl create secret generic ${secrets[0].secretName} --from-file=`);
  });

  it("run spiped with valid arguments", async () => {
    const { readArguments } = await import("../../../src/cli/spiped-arguments.ts");
    let containers = 0;
    for (const name of ["deployment", "sidecar"]) {
      for (const document of parseAllDocuments(readFileSync(`deploy/kubernetes/${name}.yaml`, "utf8"))) {
        const manifest = document.toJS();
        const pod = manifest.spec?.template?.spec ?? manifest.spec ?? {};
        for (const container of [...(pod.containers ?? []), ...(pod.initContainers ?? [])]) {
          if (container.name !== "spiped") continue;
          containers += 1;
          expect(await readArguments(container.args)).toMatchObject({ action: "serve" });
          expect(container.securityContext).toMatchObject({ readOnlyRootFilesystem: true });
        }
      }
    }
    expect(containers).toBe(2);
  });
});

/** Starts the daemon of a manifest, with the test's addresses and files; returns the address of its metrics. */
async function startDaemonOf(args: readonly string[], files: Readonly<Record<string, string>> = {}) {
  const addresses = { source: await freeAddress(), metrics: await freeAddress() };
  const own: Record<string, string> = {
    "-s": addresses.source.text,
    "-t": (await startEcho()).address.text,
    "-k": keyFile(),
    "--metrics": addresses.metrics.text,
    ...files,
  };
  const changed = args.map((arg, i) => own[args[i - 1] ?? ""] ?? arg);
  const daemon = start([...commandOf("ours", "spiped"), "-F", ...changed]);
  await untilListening(daemon, addresses.source);
  return addresses.metrics;
}

describe("the probes of the Kubernetes manifests", () => {
  it.each(["deployment", "sidecar"])("succeed as kubelet sends them: %s.yaml", async (name) => {
    const pods = parseAllDocuments(readFileSync(`deploy/kubernetes/${name}.yaml`, "utf8"))
      .map((document) => document.toJS())
      .map(({ kind, metadata, spec }) => (kind === "Pod" ? { metadata, spec } : spec?.template))
      .filter((pod) => pod !== undefined);
    expect(pods).toHaveLength(1);
    const { metadata, spec } = pods[0];
    const container = [...spec.containers, ...(spec.initContainers ?? [])].find(
      ({ name }) => name === "spiped",
    );
    const port = container.ports.find(({ name }: { name: string }) => name === "metrics").containerPort;
    expect(container.args).toContain(`[0.0.0.0]:${port}`);
    expect(container.args).toContain("--metrics-public");
    expect(metadata.annotations["prometheus.io/port"]).toBe(String(port));
    const status = await startDaemonOf(container.args);
    const headers = { host: `10.1.2.3:${port}` };
    const probes = [container.readinessProbe, container.livenessProbe, container.startupProbe].filter(
      Boolean,
    );
    expect(probes.length).toBeGreaterThan(0);
    for (const { httpGet } of probes) {
      expect(httpGet.port).toBe("metrics");
      expect((await ask(status, httpGet.path, { headers })).status).toBe(200);
    }
    expect((await ask(status, "/metrics", { headers })).status).toBe(200);
  });
});

describe("the compose file", () => {
  it("has metrics that its Prometheus can read, and clients without the token can't", async () => {
    const { services, secrets } = parse(readFileSync("deploy/compose/compose.yaml", "utf8"));
    const { scrape_configs } = parse(readFileSync("deploy/compose/prometheus.yml", "utf8"));
    const [{ authorization, static_configs }] = scrape_configs;
    const tokenFile = "/run/secrets/metrics.token";
    expect(authorization.credentials_file).toBe(tokenFile);
    expect(services.spiped.command).toContain(tokenFile);
    for (const { secrets: used } of [services.spiped, services.prometheus])
      for (const secret of used) expect(secrets).toHaveProperty([secret]);

    const token = "0123456789abcdef0123456789abcdef";
    const file = join(temporaryDirectory(), "token");
    writeFileSync(file, `${token}\n`, { mode: 0o600 });
    const status = await startDaemonOf(services.spiped.command, { "--metrics-token-file": file });
    const host = static_configs[0].targets[0];
    const asked = (headers: Record<string, string>) => ask(status, "/metrics", { headers });
    expect((await asked({ host, authorization: `Bearer ${token}` })).status).toBe(200);
    expect((await asked({ host })).status).toBe(401);
    const port = Number(status.text.split(":").at(-1));
    const [, ...healthcheck] = services.spiped.healthcheck.test;
    const here = healthcheck.map((word: string) => word.replace("127.0.0.1:9464", `127.0.0.1:${port}`));
    expect((await run(here)).status).toBe(0);
  });
});

describe("the container file", () => {
  it("installs with existing commands, and runs as an unprivileged user", () => {
    const text = readFileSync("deploy/container/Containerfile", "utf8");
    const manifest = JSON.parse(readFileSync("package.json", "utf8"));
    expect(text).toContain("npm ci --ignore-scripts && npm pack");
    expect(text).toMatch(/^USER 65532/m);
    expect(Object.keys(manifest.bin)).toContain("spiped");
  });
});

describe("the Grafana dashboard", () => {
  it("queries only existing metrics", async () => {
    const { makeMetrics, makeRegistry } = await import("../../../src/daemon/observe/metrics.ts");
    const { registry } = makeMetrics(makeRegistry());
    const known = (await registry.getMetricsAsJSON()).map(({ name }) => name);
    const dashboard = JSON.parse(readFileSync("deploy/grafana/spiped.json", "utf8"));
    const asked: string[] = dashboard.panels.flatMap(({ targets }: { targets: { expr: string }[] }) =>
      targets.flatMap(({ expr }) => expr.match(/\b(spiped|nodejs)_\w+/g) ?? []),
    );
    expect(asked.length).toBeGreaterThan(6);
    for (const name of asked) expect(known).toContain(name.replace(/_bucket$/, ""));
  });
});
