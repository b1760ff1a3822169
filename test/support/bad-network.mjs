/**
 * A bad network: forwards packets between two TUN devices, and delays, duplicates, damages or drops some of them.
 *
 *     node bad-network.mjs PORT_A PORT_B '{"loss": 0.01, "delay": 100, "reorder": 0.25, "duplicate": 0.01, "damage": 0.005}'
 *
 * Each device is at the other end of a UDP "connection", from a port that is 10 higher (socat TUN:...
 * UDP:127.0.0.1:PORT,sourceport=PORT+10). While the working directory has a file named `cut`, all packets are dropped.
 * Delays are in ms.
 */
import { createSocket } from "node:dgram";
import { existsSync } from "node:fs";

const [portA, portB, text] = process.argv.slice(2);
const { loss = 0, delay = 0, reorder = 0, duplicate = 0, damage = 0 } = JSON.parse(text);
const ends = [portA, portB].map((port) => {
  const socket = createSocket("udp4");
  socket.bind(Number(port), "127.0.0.1", () => socket.setRecvBufferSize(1 << 20));
  return { socket, device: Number(port) + 10 };
});
let cut = false;
setInterval(() => {
  cut = existsSync("cut");
}, 20);

for (const [i, end] of ends.entries()) {
  const other = ends[1 - i];
  end.socket.on("error", () => {});
  end.socket.on("message", (packet) => {
    if (cut || Math.random() < loss) return;
    if (Math.random() < damage) packet[Math.floor(Math.random() * packet.length)] ^= 1;
    const pass = () => other.socket.send(packet, other.device, "127.0.0.1", () => {});
    const wait = Math.random() < reorder ? delay + 5 + Math.random() * 5 : delay;
    for (let copies = Math.random() < duplicate ? 2 : 1; copies > 0; copies -= 1) {
      if (wait === 0) pass();
      else setTimeout(pass, wait);
    }
  });
}
