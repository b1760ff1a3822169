/** Options of a tunnel: socket permissions, idle timeout, client address list, failover. */
import { execFileSync } from "node:child_process";
import { statSync } from "node:fs";
import { expect, it } from "vitest";
import {
  commandOf,
  connectTo,
  freeAddress,
  keyFile,
  run,
  startSpiped,
  until,
} from "../../support/programs.ts";
import { inNamespace } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { exchange, readAll, serve, startEcho } from "../../support/servers.ts";

describeIfInstalled(
  "root",
  "spiped",
  "getent",
)("--socket-mode and --socket-owner", () => {
  it("set mode and owner of a UNIX socket", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const source = await freeAddress("UNIX");
    await startSpiped("c", "-d", wire, echo.address, key);
    await startSpiped(
      "ours",
      "-e",
      source,
      wire,
      key,
      "--socket-mode",
      "0660",
      "--socket-owner",
      "nobody:daemon",
    );
    const id = (flag: string, name: string) =>
      Number(execFileSync("getent", [flag, name], { encoding: "utf8" }).split(":")[2]);
    expect(statSync(source.text).mode & 0o777).toBe(0o660);
    await until(() => statSync(source.text).uid === id("passwd", "nobody"));
    expect(statSync(source.text).gid).toBe(id("group", "daemon"));
    expect(String(await exchange(source, "hello"))).toBe("hello");
  });

  it("are rejected for other sources, and so are unknown owners", async () => {
    const args = (source: string) => ["-F", "-e", "-s", source, "-t", "[127.0.0.1]:1", "-k", keyFile()];
    const spiped = (source: string, ...more: string[]) =>
      run([...commandOf("ours", "spiped"), ...args(source), ...more]);
    expect(await spiped("[127.0.0.1]:1", "--socket-mode", "0600")).toMatchObject({
      status: 1,
      stderr: "spiped: --socket-mode and --socket-owner require a UNIX socket, not [127.0.0.1]:1\n",
    });
    const source = await freeAddress("UNIX");
    expect(await spiped(source.text, "--socket-owner", "nobody-at-all")).toMatchObject({
      status: 1,
      stderr: "spiped: No such user: nobody-at-all\n",
    });
    expect(await spiped(source.text, "--socket-mode", "rw")).toMatchObject({
      status: 1,
      stderr: "spiped: --socket-mode must be permissions such as 0660, not rw\n",
    });
  });
});

describeIfInstalled("spiped")("--idle-timeout", () => {
  it("closes a connection without traffic, and no others", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const plain = await freeAddress();
    const daemon = await startSpiped(
      "ours",
      "-d",
      wire,
      echo.address,
      key,
      "--idle-timeout",
      "0.4",
      "--log-level",
      "info",
    );
    await startSpiped("c", "-e", plain, wire, key);
    const idle = await connectTo(plain);
    const busy = await connectTo(plain);
    let answers = 0;
    busy.on("data", () => {
      answers += 1;
    });
    const beat = setInterval(() => busy.write("x"), 50);
    idle.write("once");
    await readAll(idle).catch(() => {});
    clearInterval(beat);
    expect(answers).toBeGreaterThan(4);
    expect(busy.readableEnded).toBe(false);
    busy.end();
    await until(() => /decrypted: closed\n/.test(daemon.stderr()));
    expect(daemon.stderr()).toMatch(/4 bytes encrypted, 4 bytes decrypted: idle timeout \(0\.4 s\)\n/);
  });
});

describeIfInstalled("spiped")("--allow", () => {
  it("closes connections from other addresses without sending data", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const options = ["--allow", "192.0.2.0/24", "--allow", "127.0.0.9", "--log-level", "info"];
    const daemon = await startSpiped("ours", "-d", wire, echo.address, key, ...options);
    expect(await readAll(await connectTo(wire))).toHaveLength(0);
    await until(() => daemon.stderr().includes("address not allowed"));
    const plain = await freeAddress();
    await startSpiped("ours", "-e", plain, wire, key, "-b", "[127.0.0.9]");
    expect(String(await exchange(plain, "hello"))).toBe("hello");
  });

  it.each(["nowhere", "1.2.3.4/33", "1.2.3.4/x", "::1/129", ""])("rejects %j", async (range) => {
    const args = [
      "-F",
      "-e",
      "-s",
      "[127.0.0.1]:1",
      "-t",
      "[127.0.0.1]:1",
      "-k",
      keyFile(),
      "--allow",
      range,
    ];
    expect(await run([...commandOf("ours", "spiped"), ...args])).toMatchObject({
      status: 1,
      stderr: `spiped: --allow must be an IP address, a range such as 192.0.2.0/24, or unix, not ${range || "an empty value"}\n`,
    });
  });
});

describeIfInstalled("spiped")("--failover-target", () => {
  it.each(["-d", "-e"] as const)("is used when the target fails, with %s", async (mode) => {
    const key = keyFile();
    const greet = (text: string) =>
      serve((socket) => {
        socket.resume();
        socket.end(text);
      });
    const [first, second] = [await greet("first"), await greet("second")];
    const plain = await freeAddress();
    let targets = [first.address, second.address];
    if (mode === "-e") {
      targets = [await freeAddress(), await freeAddress()];
      const servers = [first, second];
      for (const [i, wire] of targets.entries()) await startSpiped("c", "-d", wire, servers[i]!.address, key);
    }
    const wire = mode === "-d" ? await freeAddress() : plain;
    await startSpiped("ours", mode, wire, targets[0]!, key, "--failover-target", targets[1]!.text);
    if (mode === "-d") await startSpiped("c", "-e", plain, wire, key);
    expect(String(await exchange(plain, "x"))).toBe("first");
    await new Promise((closed) => first.server.close(closed));
    if (mode === "-d") {
      expect(String(await exchange(plain, "x"))).toBe("second");
      expect(String(await exchange(plain, "x"))).toBe("second");
      // The first target is up again, but is not used until its cooldown is over.
      first.server.listen(first.address.connect);
      expect(String(await exchange(plain, "x"))).toBe("second");
    }
  });
});

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "spiped",
  "socat",
  "curl",
)("a target's name", () => {
  it("that no longer resolves keeps its last addresses; the failures are logged once and counted", async () => {
    const output = await inNamespace(`
      mount -t tmpfs none /mnt; cp /etc/hosts /mnt/hosts; cp /etc/hosts /mnt/original; cp /etc/nsswitch.conf /mnt/nsswitch.conf
      echo '127.0.0.1 target.example.org' >> /mnt/hosts; echo 'hosts: files' > /mnt/nsswitch.conf
      mount --bind /mnt/hosts /etc/hosts; mount --bind /mnt/nsswitch.conf /etc/nsswitch.conf
      socat TCP-LISTEN:8003,fork,reuseaddr EXEC:cat &
      spiped -F -d -s '[127.0.0.1]:8002' -t target.example.org:8003 -k spiped.key -r 0.1 --metrics $PWD/m.sock 2> log &
      listening 8002
      cat /mnt/original > /etc/hosts
      until curl -s --unix-socket m.sock http://localhost/metrics | grep 'lookup_failures_total{tunnel="default"} [3-9]'; do sleep 0.05; done
      test "$(echo hello | /usr/bin/spipe -t '[127.0.0.1]:8002' -k spiped.key)" = hello
      cat log
      echo '127.0.0.1 target.example.org' >> /etc/hosts
      # Longer than -r: the name has been looked up again.
      sleep 0.4
      cat /mnt/original > /etc/hosts
      until test $(wc -l < log) = 2; do sleep 0.05; done
      echo all done
    `);
    expect(output).toMatch(
      /^spiped_lookup_failures_total.*\nspiped: Error looking up target.example.org: Name or service not known\nall done\n$/,
    );
  });
});
