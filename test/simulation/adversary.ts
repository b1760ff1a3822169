/**
 * An adversary on the wire, who changes the encrypted data of a connection, and programs without the key: clients and
 * servers.
 */
import { ClientHandshake, ServerHandshake } from "../../src/protocol/handshake.ts";
import type { Secret } from "../../src/protocol/secret.ts";
import type { Endpoint, Network, SocketAddress, Tamper } from "./network.ts";
import type { Random } from "./random.ts";
import type { Attack, Impostor, IntruderPlan } from "./scenario.ts";
import { EAGAIN } from "./system-errors.ts";

/**
 * Returns what the adversary does to the segments of one direction.
 *
 * @param onAttack - called when something was changed.
 */
export function makeTamper({ kind, segment }: Attack, random: Random, onAttack: () => void): Tamper {
  let count = -1;
  let held: Buffer | undefined;
  return (bytes) => {
    count += 1;
    if (held !== undefined) {
      const first = held;
      held = undefined;
      onAttack();
      return [bytes, first];
    }
    if (count !== segment) return [bytes];
    // The next segment may never come; then this one is lost.
    if (kind === "swap" || kind === "drop") {
      if (kind === "swap") held = bytes;
      onAttack();
      return [];
    }
    onAttack();
    switch (kind) {
      case "flip": {
        const changed = Buffer.from(bytes);
        const at = random.below(changed.length);
        changed[at]! ^= 1 << random.below(8);
        return [changed];
      }
      case "repeat":
        return [bytes, bytes];
      case "inject":
        return [random.bytes(random.between(1, 100)), bytes];
      case "fin":
      case "rst":
        return [bytes.subarray(0, random.below(bytes.length + 1)), kind];
    }
  };
}

/** A program without the key. */
export class Intruder {
  readonly #plan: IntruderPlan;
  readonly #random: Random;
  #endpoint: Endpoint | undefined;
  #handshake: ClientHandshake | undefined;
  readonly #buffer = Buffer.allocUnsafe(4096);
  #isDone = false;

  constructor(plan: IntruderPlan, network: Network, target: SocketAddress, wrongKey: Secret, weak: boolean) {
    this.#plan = plan;
    this.#random = network.random;
    network.after(plan.at, () => {
      const endpoint = network.connect(plan.host, target, (status) => {
        if (status !== 0 || this.#isDone) return;
        this.#start(endpoint, wrongKey, weak);
      });
      this.#endpoint = endpoint;
      if (plan.leavesAfter !== Number.POSITIVE_INFINITY) network.after(plan.leavesAfter, () => this.leave());
    });
  }

  leave(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    if (this.#random.chance(0.5)) this.#endpoint?.reset();
    else this.#endpoint?.close();
  }

  #start(endpoint: Endpoint, wrongKey: Secret, weak: boolean): void {
    endpoint.onChange = () => this.#read(endpoint);
    switch (this.#plan.kind) {
      case "silent":
        return;
      case "garbage":
        endpoint.write(this.#random.bytes(this.#random.magnitude(1, 2000)));
        return;
      case "half-nonce":
        endpoint.write(this.#random.bytes(this.#random.between(1, 31)));
        return;
      case "nonce-only":
        endpoint.write(this.#random.bytes(32));
        return;
      case "wrong-key":
        this.#handshake = new ClientHandshake(wrongKey, { weak });
        endpoint.write(this.#handshake.nonce);
        this.#read(endpoint);
        return;
      case "leaves":
        this.leave();
    }
  }

  #read(endpoint: Endpoint): void {
    while (!this.#isDone && endpoint.isReadable) {
      const length = endpoint.read(this.#buffer);
      if (length === EAGAIN) return;
      if (length <= 0) {
        this.leave();
        return;
      }
      const send = this.#handshake?.receive(this.#buffer.subarray(0, length)).send;
      if (send !== undefined) endpoint.write(send);
    }
  }
}

/** Listens as a server without the key. */
export function startImpostor(
  kind: Impostor,
  network: Network,
  address: SocketAddress,
  wrongKey: Secret,
): void {
  const port = network.listen(address, 128);
  port.onChange = () => {
    for (let endpoint = port.queue.shift(); endpoint !== undefined; endpoint = port.queue.shift()) {
      deceive(kind, endpoint, network.random, wrongKey);
    }
  };
}

function deceive(kind: Impostor, endpoint: Endpoint, random: Random, wrongKey: Secret): void {
  const handshake = kind === "wrong-key" ? new ServerHandshake([wrongKey], { weak: true }) : undefined;
  if (handshake !== undefined) endpoint.write(handshake.nonce);
  if (kind === "garbage") endpoint.write(random.bytes(random.magnitude(1, 1000)));
  if (kind === "closes") endpoint.close();
  if (kind === "resets") endpoint.reset();
  const buffer = Buffer.allocUnsafe(4096);
  endpoint.onChange = () => {
    while (!endpoint.isClosed && endpoint.isReadable) {
      const length = endpoint.read(buffer);
      if (length === EAGAIN) return;
      if (length <= 0) {
        endpoint.close();
        return;
      }
      try {
        handshake?.receive(buffer.subarray(0, length));
      } catch {
        endpoint.close();
      }
    }
  };
}
