/** Data that arrived before a reset is delivered before the reset is passed on. */
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { expect, it } from "vitest";
import {
  commandOf,
  connectTo,
  type Family,
  freeAddress,
  type Implementation,
  keyFile,
  run,
  start,
  startSpiped,
  until,
} from "../../support/programs.ts";
import { rawHandshake, rawPacket } from "../../support/raw-peer.ts";
import { describeIfInstalled } from "../../support/requirements.ts";
import { serve } from "../../support/servers.ts";

const ANSWER = randomBytes(200_000);

/** Returns the bytes that a socket's peer has not acknowledged; 0 for UNIX sockets, whose peer has them immediately. */
function unacknowledged({ localPort, remotePort }: Socket): number {
  if (localPort === undefined) return 0;
  const hex = (port = 0) => port.toString(16).toUpperCase().padStart(4, "0");
  const line = new RegExp(`: \\w+:${hex(localPort)} \\w+:${hex(remotePort)} \\w\\w (\\w+):`);
  return Number.parseInt(line.exec(readFileSync("/proc/net/tcp", "latin1"))![1]!, 16);
}

/** Starts a target that sends an answer, and resets when it has arrived; over a UNIX socket, it closes. */
const startResetting = (family: Family) =>
  serve((socket) => {
    socket.write(ANSWER, () => {
      void until(() => unacknowledged(socket) === 0).then(() => {
        if (family === "UNIX") socket.destroy();
        else socket.resetAndDestroy();
      });
    });
  }, family);

/** Records the data that a socket receives, and whether it is closed cleanly. */
function record(socket: Socket) {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  return {
    received: () => Buffer.concat(chunks),
    closed: new Promise<string>((resolve) => {
      socket.on("close", () => {
        const error: NodeJS.ErrnoException | null = socket.errored;
        resolve(error?.code ?? "closed");
      });
      socket.on("end", () => setImmediate(() => socket.destroyed || socket.end()));
    }),
  };
}

/**
 * A client in Perl that sends as long as it can, and still reads after a write has failed, unlike Node, which destroys
 * a socket after a write error.
 */
const STUBBORN_CLIENT = `
  use IO::Socket::INET; use IO::Socket::UNIX; use IO::Select;
  $SIG{PIPE} = "IGNORE"; $| = 1;
  my ($family, $peer, $pause) = @ARGV;
  my $socket = "IO::Socket::$family"->new(split /=/, $peer, 2) or die "connect: $!";
  $socket->blocking(0);
  my ($select, $data, $end) = (IO::Select->new($socket), "x" x 65536, time + $pause);
  my $sends = 1;
  for (;;) {
    my $reads = time >= $end;
    my @ready = IO::Select->select($reads ? $select : undef, $sends ? $select : undef, undef, 0.1);
    if (@ready && @{$ready[1]}) { $sends = 0 unless defined syswrite($socket, $data) or $!{EAGAIN}; }
    next unless $reads;
    my $count = sysread($socket, my $chunk, 65536);
    if (!defined $count) { next if $!{EAGAIN}; last; }
    last if $count == 0;
    print $chunk;
  }
`;

const PAIRS: [Implementation, Implementation][] = [
  ["ours", "ours"],
  ["ours", "c"],
  ["c", "ours"],
  ["c", "c"],
];

describeIfInstalled(
  "spiped",
  "spipe",
  "perl",
)("a target that answers and then resets", () => {
  for (const family of ["IPv4", "UNIX"] as const) {
    it.each(PAIRS)(`has its whole answer delivered, %s -e and %s -d, ${family}`, async (encrypt, decrypt) => {
      const target = await startResetting(family);
      const key = keyFile();
      const [wire, plain] = [await freeAddress(family), await freeAddress(family)];
      await startSpiped(decrypt, "-d", wire, target.address, key);
      await startSpiped(encrypt, "-e", plain, wire, key);
      for (let i = 0; i < 10; i += 1) {
        const { received, closed } = record(await connectTo(plain));
        const how = await closed;
        expect(received().length).toBe(ANSWER.length);
        if (encrypt === "ours" && decrypt === "ours" && family !== "UNIX") expect(how).toBe("ECONNRESET");
      }
    });

    it.each(["at once", "late"])(
      `has it delivered to a client that still sends and reads %s, ${family}`,
      async (when) => {
        const target = await startResetting(family);
        const key = keyFile();
        const [wire, plain] = [await freeAddress(family), await freeAddress(family)];
        await startSpiped("ours", "-d", wire, target.address, key);
        await startSpiped("ours", "-e", plain, wire, key);
        const { connect } = plain;
        const place =
          "path" in connect
            ? ["UNIX", `Peer=${connect.path}`]
            : ["INET", `PeerAddr=127.0.0.1:${connect.port}`];
        const pause = when === "late" ? "1" : "0";
        const { stdout } = await run(["perl", "-e", STUBBORN_CLIENT, ...place, pause]);
        expect(stdout.length).toBe(ANSWER.length);
        expect(stdout.equals(ANSWER)).toBe(true);
      },
    );

    it(`has it delivered by spipe, ${family}`, async () => {
      const target = await startResetting(family);
      const key = keyFile();
      const wire = await freeAddress(family);
      await startSpiped("ours", "-d", wire, target.address, key);
      const command = [...commandOf("ours", "spipe"), "-t", wire.text, "-k", key];
      const spipe = start(["bash", "-c", '"$@" </dev/zero | (sleep 0.3; cat)', "-", ...command]);
      await spipe.ended;
      expect(spipe.stdout().equals(ANSWER)).toBe(true);
    });
  }
});

describeIfInstalled("spiped")("clients that disconnect at any moment", () => {
  it("leave no connection behind", { timeout: 60_000 }, async () => {
    const target = await serve((socket) => void socket.pipe(socket));
    const key = keyFile();
    const [wire, plain] = [await freeAddress(), await freeAddress()];
    const options = ["-n", "0", "-o", "60"];
    const daemons = [
      await startSpiped("ours", "-d", wire, target.address, key, ...options),
      await startSpiped("ours", "-e", plain, wire, key, ...options),
    ];
    const descriptors = () => daemons.map(({ pid }) => readdirSync(`/proc/${pid}/fd`).length);
    const before = descriptors();
    for (let i = 0; i < 200; i += 1) {
      const client = await connectTo(plain);
      client.resume();
      client.write(ANSWER.subarray(0, 1 + Math.floor(Math.random() * ANSWER.length)));
      const disconnect = i % 2 === 0 ? () => client.resetAndDestroy() : () => client.destroy();
      setTimeout(disconnect, Math.random() * 60);
      if (i % 4 === 3) await new Promise((closed) => client.once("close", closed));
    }
    await until(() => descriptors().every((count, i) => count <= before[i]!));
  });
});

it.each([0, 500])("logs a reset that arrives together with %i bytes of a packet as a reset", async (size) => {
  const key = keyFile();
  const target = await serve((socket) => void socket.resume());
  const wire = await freeAddress();
  const daemon = await startSpiped("ours", "-d", wire, target.address, key);
  const socket = await connectTo(wire);
  const { up } = (await rawHandshake(socket, key))!;
  await until(() => target.sockets.length === 1);
  daemon.child.kill("SIGSTOP");
  const packets = [rawPacket(up, 0, "first"), rawPacket(up, 1, "second").subarray(0, size)];
  await new Promise((written) => socket.write(Buffer.concat(packets), written));
  socket.resetAndDestroy();
  daemon.child.kill("SIGCONT");
  await until(() => daemon.stderr().includes(" failed: "));
  expect(daemon.stderr()).toContain(" failed: peer: reset; ");
});
