/** Failures around the daemon: the data must arrive intact, or the connection must close with a logged reason. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { resolve } from "node:path";
import { expect, it } from "vitest";
import { withoutFailureLines } from "../../support/log-lines.ts";
import {
  commandOf,
  connectTo,
  freeAddress,
  keyFile,
  run,
  start,
  startSpiped,
  until,
  untilListening,
} from "../../support/programs.ts";
import { inNamespace } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import {
  digestOf,
  exchange,
  RandomSource,
  readAll,
  send,
  serve,
  startDigester,
  startEcho,
} from "../../support/servers.ts";

/** Returns the reasons in a daemon's log for the end of each connection. */
const reason = (log: string) => [...log.matchAll(/ bytes decrypted: (.*)\n/g)].map(([, why]) => why);

describeIfInstalled("spiped", "spipe")("a target", () => {
  it.each([
    ["accepts and closes", /^closed$/, (socket: import("node:net").Socket) => socket.end()],
    [
      "resets at once",
      /^(target|plaintext side): reset$/,
      (socket: import("node:net").Socket) => socket.resetAndDestroy(),
    ],
    [
      "resets in the middle of its answer",
      /^plaintext side: reset$/,
      (socket: import("node:net").Socket) => {
        socket.write(randomBytes(5000), () => setTimeout(() => socket.resetAndDestroy(), 20));
      },
    ],
  ])("that %s makes the daemon close that client, and the next one is served", async (_what, why, behave) => {
    let misbehave = true;
    const target = await serve((socket) => {
      if (misbehave) behave(socket.resume());
      else socket.pipe(socket);
    });
    const key = keyFile();
    const wire = await freeAddress();
    const daemon = await startSpiped("ours", "-d", wire, target.address, key, "--log-level", "info");
    await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key], "hello");
    await until(() => reason(daemon.stderr()).length === 1);
    expect(reason(daemon.stderr())[0]).toMatch(why);
    misbehave = false;
    const next = await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key], "hello");
    expect(String(next.stdout)).toBe("hello");
  });

  it("that hangs affects only its own connection", async () => {
    let first = true;
    const target = await serve((socket) => {
      if (!first) socket.pipe(socket);
      first = false;
    });
    const key = keyFile();
    const wire = await freeAddress();
    const plain = await freeAddress();
    await startSpiped("ours", "-d", wire, target.address, key);
    await startSpiped("c", "-e", plain, wire, key);
    const hanging = await connectTo(plain);
    hanging.write(Buffer.alloc(1 << 20));
    await until(() => target.sockets.length === 1);
    expect(String(await exchange(plain, "hello"))).toBe("hello");
    expect(hanging.destroyed).toBe(false);
  });
});

describeIfInstalled("spiped", "spipe")("a peer that is killed", () => {
  it.each(["-e", "-d"] as const)("during a transfer (%s) makes the other side close", async (killed) => {
    const digester = await startDigester();
    const key = keyFile();
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    const server = await startSpiped("ours", "-d", wire, digester.address, key, "--log-level", "info");
    const client = await startSpiped("ours", "-e", plain, wire, key, "--log-level", "info");
    const socket = await connectTo(plain);
    const sending = send(socket, new RandomSource(1 << 28)).catch(() => {});
    await until(() => digester.sockets[0] !== undefined && digester.sockets[0].bytesRead > 1 << 20);
    const [victim, survivor] = killed === "-e" ? [client, server] : [server, client];
    victim.child.kill("SIGKILL");
    await Promise.race([sending, new Promise((closed) => socket.once("close", closed))]);
    await until(() => reason(survivor.stderr()).length === 1);
    const [why] = reason(survivor.stderr());
    // If the kernel's FIN happens to follow a whole packet, the protocol can't distinguish it from a clean end.
    expect(why).toMatch(/^(peer: (reset|truncated in packet \d+|closed before end of stream)|closed)$/);
    if (killed === "-e") {
      await until(() => digester.sockets[0]!.destroyed);
      expect(digester.digests).toHaveLength(why === "closed" ? 1 : 0);
    }
  });
});

describeIfInstalled("spiped", "spipe")("stopping and continuing a daemon", () => {
  it.each(["during a transfer", "during a handshake"])("%s loses no data", async (when) => {
    const digester = await startDigester();
    const key = keyFile();
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    const server = await startSpiped("ours", "-d", wire, digester.address, key);
    const client = await startSpiped("ours", "-e", plain, wire, key);
    const source = new RandomSource(1 << 25);
    if (when === "during a handshake") process.kill(server.pid, "SIGSTOP");
    const socket = await connectTo(plain);
    const answer = readAll(socket);
    const sending = send(socket, source);
    for (const { pid } of [client, server]) {
      if (when === "during a transfer") await until(() => digester.sockets.length > 0);
      process.kill(pid, "SIGSTOP");
      await new Promise((done) => setTimeout(done, 150));
      process.kill(pid, "SIGCONT");
    }
    await sending;
    expect(String(await answer)).toBe(source.digest());
  });
});

describeIfInstalled("spiped", "spipe")("few file descriptors", () => {
  it("do not terminate the daemon, which serves again when descriptors are free", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const wire = await freeAddress();
    const args = ["-F", "-d", "-s", wire.text, "-t", echo.address.text, "-k", key, "-o", "1"];
    const daemon = start([
      "bash",
      "-c",
      'ulimit -n 64; exec "$@"',
      "-",
      ...commandOf("ours", "spiped"),
      ...args,
    ]);
    await untilListening(daemon, wire);
    const sockets = await Promise.all(
      Array.from({ length: 150 }, async () => {
        const socket = connect(wire.connect);
        socket.on("error", () => {});
        socket.resume();
        await Promise.race([once(socket, "connect"), once(socket, "close")]);
        return socket;
      }),
    );
    await run([...commandOf("ours", "spipe"), "-t", wire.text, "-k", key], "x");
    for (const socket of sockets) socket.destroy();
    await until(async () => {
      const { stdout } = await run([...commandOf("ours", "spipe"), "-t", wire.text, "-k", key], "again");
      return String(stdout) === "again";
    });
    expect(daemon.child.exitCode).toBeNull();
    // Logged once, not for each connection.
    expect(withoutFailureLines(daemon.stderr())).toBe(
      "spiped: Error accepting a connection: file descriptors run out: the limit is 64 (ulimit -n)\n",
    );
  });
});

describeIfInstalled("spiped", "spipe")("little memory", () => {
  it("is enough for 100 concurrent connections", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    const [node, file] = commandOf("ours", "spiped");
    const daemon = start([
      ...[node, "--max-old-space-size=24", file!, "-F", "-d", "-n", "0"],
      ...["-s", wire.text, "-t", echo.address.text, "-k", key],
    ]);
    // Not Tarsnap's spiped: its backlog of 10 is too small.
    await startSpiped("ours", "-e", plain, wire, key, "-n", "0");
    await until(
      async () => (await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key], "x")).status === 0,
    );
    const data = randomBytes(500_000);
    const answers = await Promise.all(Array.from({ length: 100 }, () => exchange(plain, data)));
    for (const answer of answers) expect(answer.equals(data)).toBe(true);
    expect(daemon.child.exitCode).toBeNull();
  });
});

describeIfInstalled("spiped")("a target that never reads", () => {
  it("costs little memory per connection", { timeout: 90_000 }, async () => {
    const CONNECTIONS = 200;
    const key = keyFile();
    const target = await serve((socket) => void socket.pause());
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    await startSpiped("c", "-d", wire, target.address, key, "-n", "0");
    const daemon = await startSpiped("ours", "-e", plain, wire, key, "-n", "0");
    const memory = () =>
      Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${daemon.pid}/status`, "latin1"))![1]);
    const data = Buffer.alloc(1 << 16);
    let lastWrite = 0;
    /** Connects `count` clients and sends until no more data is accepted. */
    const fill = async (count: number) => {
      for (let i = 0; i < count; i += 1) {
        const socket = await connectTo(plain);
        const more = () => {
          lastWrite = performance.now();
          while (socket.write(data));
        };
        socket.on("drain", more);
        more();
      }
      await until(() => performance.now() - lastWrite > 1000);
    };
    await fill(20);
    const before = memory();
    await fill(CONNECTIONS);
    // Tarsnap's spiped holds 22 KiB per connection; a full read buffer would be 132 KiB.
    expect((memory() - before) / CONNECTIONS).toBeLessThan(90);
  });
});

describeIfInstalled("spiped")("standard output on a full disk", () => {
  it("makes spipe report the error and exit with 1", async () => {
    const key = keyFile();
    const target = await serve((socket) => socket.end(randomBytes(1 << 20)));
    const wire = await freeAddress();
    await startSpiped("c", "-d", wire, target.address, key);
    expect(existsSync("/dev/full")).toBe(true);
    const command = [...commandOf("ours", "spipe"), "-t", wire.text, "-k", key];
    const { status, stderr } = await run(["bash", "-c", '"$@" > /dev/full', "-", ...command]);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: "spipe: Error writing: No space left on device\n",
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
)("a target's name", () => {
  it("may change its addresses, and its first address may be unreachable", async () => {
    const output = await inNamespace(`
      mount -t tmpfs none /mnt; cp /etc/hosts /mnt/hosts; echo 'hosts: files' > /mnt/nsswitch.conf
      mount --bind /mnt/hosts /etc/hosts; mount --bind /mnt/nsswitch.conf /etc/nsswitch.conf
      socat TCP-LISTEN:8003,bind=127.0.0.2,fork,reuseaddr SYSTEM:'cat > /dev/null; echo second' &
      socat TCP-LISTEN:8003,bind=127.0.0.3,fork,reuseaddr SYSTEM:'cat > /dev/null; echo third' &
      printf '2001:db8::1 target.test\\n127.0.0.9 target.test\\n127.0.0.2 target.test\\n' >> /etc/hosts
      spiped -F -d -s '[127.0.0.1]:8002' -t target.test:8003 -k spiped.key -r 0.2 &
      listening 8002; listening 8003
      ask() { echo x | /usr/bin/spipe -t '[127.0.0.1]:8002' -k spiped.key; }
      test "$(ask)" = second
      echo '127.0.0.3 target.test' > /etc/hosts
      until test "$(ask)" = third; do sleep 0.1; done
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
  });
});

const CONDITIONS = [
  ["1 % loss", { loss: 0.01 }],
  ["200 ms delay", { delay: 100 }],
  ["reordering", { delay: 5, reorder: 0.25 }],
  ["duplicates and damaged packets", { duplicate: 0.02, damage: 0.01 }],
] as const;

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "socat",
  "spiped",
)("a bad network", () => {
  /** Returns shell code that connects two hosts over the network: 10.9.0.1 for the server, 10.9.0.2 the client. */
  const machines = (between: object, mtu: number, script: string) => `
      mount -t tmpfs none /run
      mkdir -p /run/netns
      ip netns add peer
      node ${resolve("test/support/bad-network.mjs")} 9001 9002 '${JSON.stringify(between)}' &
      until ss -lunH 'sport = :9002' | grep -q .; do sleep 0.02; done
      socat TUN:10.9.0.1/24,tun-name=here,iff-no-pi,iff-up UDP:127.0.0.1:9001,sourceport=9011 &
      socat TUN,tun-name=there,iff-no-pi UDP:127.0.0.1:9002,sourceport=9012 &
      until ip link show there > link 2>&1 && ip link show here >> link 2>&1; do sleep 0.02; done
      ip link set there netns peer
      ip link set here mtu ${mtu}
      ip -n peer link set there mtu ${mtu} up
      ip -n peer addr add 10.9.0.2/24 dev there
      peer() { ip netns exec peer "$@"; }
      socat TCP-LISTEN:8003,fork,reuseaddr SYSTEM:'sha256sum' &
      spiped -d -s '[10.9.0.1]:8002' -t '[127.0.0.1]:8003' -k spiped.key -o 20 -p d.pid
      listening 8003
      head -c 2000000 /dev/urandom > file
      sum="$(sha256sum < file)"
      ${script}
      kill $(cat d.pid)
      echo all done
    `;

  it.each(CONDITIONS)("with %s loses no data", { timeout: 90_000 }, async (_name, between) => {
    const output = await inNamespace(
      machines(
        between,
        1400,
        `test "$(peer ./spipe -t '[10.9.0.1]:8002' -k spiped.key -o 20 < file)" = "$sum"
         test "$(peer /usr/bin/spipe -t '[10.9.0.1]:8002' -k spiped.key -o 20 < file)" = "$sum"`,
      ),
    );
    expect(output).toMatch(/all done\n$/);
  });

  it("with an MTU of 576 bytes loses no data", { timeout: 60_000 }, async () => {
    const output = await inNamespace(
      machines({}, 576, `test "$(peer ./spipe -t '[10.9.0.1]:8002' -k spiped.key < file)" = "$sum"`),
    );
    expect(output).toMatch(/all done\n$/);
  });

  it("that is interrupted resumes without losing data", { timeout: 120_000 }, async () => {
    const seconds = Number(process.env.CUT_SECONDS ?? 3);
    const output = await inNamespace(
      machines(
        { delay: 50 },
        1400,
        `peer ./spipe -t '[10.9.0.1]:8002' -k spiped.key < file > answer & client=$!
         sleep 0.7
         touch cut; sleep ${seconds}; rm cut
         wait $client
         test "$(cat answer)" = "$sum"`,
      ),
    );
    expect(output).toMatch(/all done\n$/);
  });
});

describeIfInstalled("spiped")("a clock that jumps", () => {
  it("affects neither timeouts nor connections, which use the monotonic clock", async () => {
    const key = keyFile();
    const echo = await startEcho();
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    // This daemon's wall clock runs a million times too fast.
    const jump = `const now = Date.now; const start = now(); Date.now = () => start + (now() - start) * 1e6;`;
    const [node, file] = commandOf("ours", "spiped");
    const code = `data:text/javascript,${encodeURIComponent(jump)}`;
    const daemon = start([
      ...[node, "--import", code, file!, "-F", "-d", "-o", "5"],
      ...["-s", wire.text, "-t", echo.address.text, "-k", key],
    ]);
    await startSpiped("c", "-e", plain, wire, key);
    await until(
      async () => (await run([...commandOf("c", "spipe"), "-t", wire.text, "-k", key], "x")).status === 0,
    );
    const held = await connectTo(plain);
    held.write("before ");
    await once(held, "readable");
    // Three and a half days by its clock.
    await new Promise((done) => setTimeout(done, 300));
    held.end("after");
    const { length } = await digestOf(held);
    expect(length).toBe("before after".length);
    expect(daemon.child.exitCode).toBeNull();
  });
});
