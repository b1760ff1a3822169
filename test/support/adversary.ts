/** An adversary in the middle: a proxy that damages the data that it forwards, at positions derived from a seed. */

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { cleanUp, freeAddress, type TestAddress } from "./programs.ts";
import { seeded } from "./seeded.ts";

/** Attacks on one direction of a connection, made once each. */
export const ATTACKS = [
  "none",
  "flip",
  "drop",
  "duplicate",
  "reorder",
  "inject",
  "truncate",
  "replay",
] as const;
export type Attack = (typeof ATTACKS)[number];

/** Returns a function that changes a stream at a position, however it is split into chunks. */
function attacker(attack: Attack, position: number, random: () => number): (chunk: Buffer) => Buffer[] {
  let passed = 0;
  let done = attack === "none";
  const kept: Buffer[] = [];
  let held: Buffer | undefined;
  return (chunk) => {
    const start = passed;
    passed += chunk.length;
    if (kept.length < 64) kept.push(chunk);
    if (held !== undefined) {
      const first = held;
      held = undefined;
      return [chunk, first];
    }
    if (done || passed <= position) return [chunk];
    done = true;
    const at = Math.max(0, position - start);
    const [before, after] = [chunk.subarray(0, at), chunk.subarray(at)];
    switch (attack) {
      case "flip": {
        const changed = Buffer.from(after);
        changed[0]! ^= 1 << Math.floor(random() * 8);
        return [before, changed];
      }
      case "drop":
        return [before, after.subarray(1 + Math.floor(random() * 1500))];
      case "duplicate":
        return [before, after, after.subarray(0, 1060)];
      case "inject":
        return [before, Buffer.from(Array.from({ length: 1060 }, () => Math.floor(random() * 256))), after];
      case "replay":
        return [before, kept[Math.floor(random() * kept.length)]!, after];
      case "reorder":
        held = after;
        return [before];
      default:
        return [before];
    }
  };
}

/** A running adversary. */
export interface Adversary {
  readonly address: TestAddress;
  /** The attack on the next connection. */
  next: {
    readonly attack: Attack;
    readonly upward: boolean;
    readonly position: number;
    readonly seed: number;
  };
}

/** Starts an adversary in front of `target`. */
export async function startAdversary(target: TestAddress): Promise<Adversary> {
  const address = await freeAddress();
  const adversary: Adversary = { address, next: { attack: "none", upward: true, position: 0, seed: 0 } };
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const { attack, upward, position, seed } = adversary.next;
    const upstream = connect({ ...target.connect, allowHalfOpen: true });
    const pass = (from: Socket, to: Socket, attacked: boolean) => {
      const change = attacker(attacked ? attack : "none", position, seeded(seed));
      let count = 0;
      from.on("data", (chunk: Buffer) => {
        if (to.destroyed || to.writableEnded) return;
        for (const piece of change(chunk)) if (piece.length > 0) to.write(piece);
        count += chunk.length;
        if (attacked && attack === "truncate" && count > position) to.end();
      });
      from.on("end", () => to.end());
      from.on("close", () => to.destroy());
      from.on("error", () => to.resetAndDestroy());
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      // A kernel that is short of memory drops data, and then also ignores the reset that follows.
      socket.setKeepAlive(true, 1000);
      socket.once("close", () => sockets.delete(socket));
    }
    pass(client, upstream, upward);
    pass(upstream, client, !upward);
  });
  server.listen(address.connect);
  await once(server, "listening");
  cleanUp(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((closed) => server.close(closed));
  });
  return adversary;
}
