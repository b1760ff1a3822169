/** Tunnels whose names can't be resolved yet (`-D`), and tunnels with the same source address. */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  commandOf,
  freeAddress,
  isListening,
  keyFile,
  run,
  start,
  temporaryDirectory,
  until,
} from "../../support/programs.ts";
import { inNamespace } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, startEcho } from "../../support/servers.ts";

const SPIPED = commandOf("ours", "spiped");

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "spiped",
  "socat",
  "curl",
)("-D", () => {
  it.each([[""], ["--workers 2"]])(
    "starts each tunnel once one of its targets resolves %s",
    async (options) => {
      const output = await inNamespace(`
      mount -t tmpfs none /mnt; cp /etc/hosts /mnt/hosts; cp /etc/nsswitch.conf /mnt/nsswitch.conf
      echo 'hosts: files' > /mnt/nsswitch.conf
      mount --bind /mnt/hosts /etc/hosts; mount --bind /mnt/nsswitch.conf /etc/nsswitch.conf
      socat TCP-LISTEN:8003,fork,reuseaddr EXEC:cat &
      tunnel() { printf '[tunnels.%s]\\ndecrypt = true\\nsource = "[127.0.0.1]:%s"\\ntarget = "%s:8003"\\nkey = "spiped.key"\\n' "$@"; }
      tunnel known 8010 127.0.0.1 > spiped.toml
      tunnel late 8011 late.example.org >> spiped.toml
      tunnel failover 8012 never.example.org >> spiped.toml
      echo 'failover-target = "[127.0.0.1]:8003"' >> spiped.toml
      chmod 644 spiped.key
      spiped -F -D --config spiped.toml --metrics $PWD/m.sock ${options} 2> log &
      daemon=$!
      echo_through() { test "$(echo hello | /usr/bin/spipe -t "[127.0.0.1]:$1" -k spiped.key)" = hello; }
      listening 8010; listening 8012
      echo_through 8010; echo_through 8012
      ! ss -ltnH 'sport = :8011' | grep -q .
      grep -q 'late: Error looking up late.example.org' log
      # A reload adds a tunnel although another one still waits for DNS.
      tunnel new 8013 127.0.0.1 >> spiped.toml
      kill -HUP $daemon
      listening 8013; echo_through 8013
      curl -s --unix-socket m.sock http://localhost/readyz || true
      # A warning unrelated to DNS is logged once for each load, not for each attempt.
      sleep 2
      test $(grep -c 'late: key file .* is world-readable' log) = 2
      echo '127.0.0.1 late.example.org' >> /etc/hosts
      listening 8011; echo_through 8011
      kill $daemon; wait $daemon
      echo all done
    `);
      expect(output).toMatch(/all done\n$/);
    },
  );
});

describe("two tunnels with the same address", () => {
  const tunnel = (name: string, source: string, target: string, key: string) =>
    `[tunnels.${name}]\nencrypt = true\nsource = "${source}"\ntarget = "${target}"\nkey = "${key}"\n`;

  it("are an error that names both, in whatever form the address is written", async () => {
    const directory = temporaryDirectory();
    const key = keyFile();
    mkdirSync(join(directory, "real"));
    symlinkSync("real", join(directory, "link"));
    const port = (await freeAddress()).text.split(":").at(-1);
    for (const [one, other] of [
      [`127.0.0.1:${port}`, `[127.0.0.1]:${port}`],
      [`[::1]:${port}`, `[0:0::1]:${port}`],
      [`${directory}/real/s`, `${directory}/link/s`],
    ] as const) {
      const file = join(directory, "spiped.toml");
      writeFileSync(file, tunnel("a", one, "[127.0.0.1]:1", key) + tunnel("b", other, "[127.0.0.1]:1", key));
      for (const options of [["-F"], ["--check-config"]]) {
        const { status, stderr } = await run([...SPIPED, "--config", file, ...options]);
        expect(status).toBe(1);
        expect(stderr).toMatch(/^spiped: tunnels a and b listen on the same address: /);
      }
    }
  });

  it("are rejected by a reload, and the previous configuration stays active", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const [source, wire] = [await freeAddress(), await freeAddress()];
    const port = source.text.split(":").at(-1);
    const file = join(temporaryDirectory(), "spiped.toml");
    const far = start([...SPIPED, "-F", "-d", "-s", wire.text, "-t", echo.address.text, "-k", key]);
    writeFileSync(file, tunnel("a", source.text, wire.text, key));
    const daemon = start([...SPIPED, "-F", "--config", file]);
    await until(() => isListening(source) && isListening(wire));
    writeFileSync(
      file,
      tunnel("a", source.text, wire.text, key) + tunnel("b", `127.0.0.1:${port}`, wire.text, key),
    );
    process.kill(daemon.pid, "SIGHUP");
    await until(() => daemon.stderr().includes("tunnels a and b listen on the same address"));
    await until(() => daemon.stderr().includes("reload failed"));
    expect(String(await exchange(source, "still here"))).toBe("still here");
    expect(far.child.exitCode).toBeNull();
  });
});
