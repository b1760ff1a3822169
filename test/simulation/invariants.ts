/** What must hold in every world. */
import { MAX_PENDING_BURST } from "../../src/tunnel/pending-handshakes.ts";
import type { Entry } from "./ledger.ts";
import type { Party, Peer } from "./peer.ts";
import { findLeak, forgetInteractive } from "./pools.ts";
import type { World } from "./world.ts";

/** A client, what it is connected to, and what the servers have reported of that. */
interface Route {
  readonly client: Peer | undefined;
  readonly encrypting: Entry | undefined;
  /** True if the adversary has changed what the servers send to each other. */
  readonly isAttacked: boolean;
  readonly decrypting: Entry | undefined;
  readonly target: Peer | undefined;
}

/** Finds what a client is connected to, by the ports of the servers' connections. */
function routeFromClient(world: World, client: Peer): Route {
  const { encrypting, decrypting, targets } = world;
  const ports = (clientPorts: ReadonlyMap<number, number>, clientPort: number | undefined) =>
    [...clientPorts].filter(([, value]) => value === clientPort).map(([port]) => port);
  const wirePorts = ports(encrypting.clientPorts, client.port);
  const wirePort = wirePorts.find((port) => decrypting.ledger.byPort(port) !== undefined);
  const plainPorts = wirePort === undefined ? [] : ports(decrypting.clientPorts, wirePort);
  return {
    client,
    encrypting: encrypting.ledger.byPort(client.port),
    isAttacked: wirePorts.some((port) => world.attacked.has(port)),
    decrypting: decrypting.ledger.byPort(wirePort),
    target: targets.find(({ port }) => plainPorts.includes(port!)),
  };
}

/** Finds the client for which the server has connected to a target. */
function routeFromTarget({ encrypting, decrypting, clients, attacked }: World, target: Peer): Route {
  const wirePort = decrypting.clientPorts.get(target.port!);
  const clientPort = encrypting.clientPorts.get(wirePort!);
  return {
    client: clients.find(({ port }) => port === clientPort),
    encrypting: encrypting.ledger.byPort(clientPort),
    isAttacked: attacked.has(wirePort!),
    decrypting: decrypting.ledger.byPort(wirePort),
    target,
  };
}

/** Checks that what a program receives is the stream of the program that it is connected to. */
export function checkPartner(world: World, peer: Peer, partner: Party): void {
  const { client, target } =
    peer.name === "client" ? routeFromClient(world, peer) : routeFromTarget(world, peer);
  const expected = peer.name === "client" ? target : client;
  if (partner !== expected) world.report(`${peer.name} ${peer.id} receives the stream of ${partner.id}`);
}

/** Checks an end that has arrived as an end. */
export function checkEnd(world: World, peer: Peer): void {
  const isClient = peer.name === "client";
  const { client, encrypting, decrypting, target, isAttacked } = isClient
    ? routeFromClient(world, peer)
    : routeFromTarget(world, peer);
  const wasOpened = (isClient ? encrypting : decrypting)?.steps.has("opened") === true;
  const where = `${peer.name} ${peer.id}`;
  if (!wasOpened) {
    if (peer.received > 0)
      world.report(`${where}: ${peer.received} bytes over a connection that was not opened`);
    return;
  }
  if (isAttacked) return;
  const partner = isClient ? target : client;
  if (partner === undefined) {
    world.report(`${where}: an end of a stream of which there is no sender`);
  } else if (!partner.hasEnded) {
    world.report(`${where}: an end of a stream that ${partner.id} has not ended`);
  } else if (peer.received !== partner.sent) {
    world.report(`${where}: an end after ${peer.received} of the ${partner.sent} bytes of ${partner.id}`);
  }
}

/** Checks, when nothing happens any more by itself, that nobody waits for what will not come. */
export function checkAtRest(world: World): void {
  if (world.violations.length > 0) return;
  checkTargets(world);
  for (const client of world.clients) {
    const route = routeFromClient(world, client);
    if (isUndisturbed(route)) checkProgress(world, route);
    checkDelivered(world, route);
    if (world.scenario.calm) checkCompleted(world, route);
    checkExplained(world, route);
  }
  for (const entry of world.decrypting.ledger.open) checkServed(world, entry);
}

/** Returns true if both programs are still connected and would receive what is sent. */
function isUndisturbed({ client, encrypting, decrypting, target, isAttacked }: Route): boolean {
  const isOpen = (entry: Entry | undefined) => entry?.last === "opened";
  if (client === undefined || target === undefined || !isOpen(encrypting) || !isOpen(decrypting))
    return false;
  if (isAttacked) return false;
  return ![client, target].some(({ hasBrokenOff, error }) => hasBrokenOff || error !== 0);
}

/** Checks that everything that was sent has arrived. */
function checkProgress(world: World, { client, target }: Route): void {
  for (const [sender, receiver] of [
    [client!, target!],
    [target!, client!],
  ] as const) {
    if (receiver.neverReads) continue;
    const where = `${receiver.name} ${receiver.id}`;
    if (sender.sent < sender.plan.total) {
      world.report(`${where} waits, ${sender.id} has sent ${sender.sent} of ${sender.plan.total} bytes`);
    } else if (receiver.received < sender.sent) {
      world.report(`${where} has received ${receiver.received} of ${sender.sent} bytes and waits for more`);
    } else if (sender.hasEnded && !receiver.sawEnd) {
      world.report(`${where} waits for the end that ${sender.id} has sent`);
    }
  }
}

/** Checks that what had arrived before a program reset its connection was delivered before the reset. */
function checkDelivered(world: World, { client, encrypting, decrypting, target, isAttacked }: Route): void {
  if (client === undefined || target === undefined || isAttacked) return;
  if (encrypting?.steps.has("opened") !== true || decrypting?.steps.has("opened") !== true) return;
  const check = (sender: Peer, receiver: Peer) => {
    if (receiver.hasBrokenOff || receiver.neverReads) return;
    // A program may give up before it has read everything, and what it gets may start with a PROXY protocol header.
    const { arrived } = sender.endpoint!.peer!;
    const delivered = receiver.endpoint!.arrived;
    if (delivered >= arrived) return;
    const where = `${receiver.name} ${receiver.id}`;
    world.report(
      `${where}: a reset after ${delivered} of the ${arrived} bytes of ${sender.id} that had arrived`,
    );
  };
  if (encrypting.reason === "plaintext-reset" && decrypting.reason === "peer-reset") check(client, target);
  if (decrypting.reason === "plaintext-reset" && encrypting.reason === "peer-reset") check(target, client);
}

/**
 * Returns a function to call after each iteration of the event loop, which checks that the number of unauthenticated
 * clients stays within its limit. A connection that is closed for that may be reported in the next iteration.
 */
export function watchUnauthenticated(world: World): () => void {
  const limit = Math.ceil(MAX_PENDING_BURST / world.scenario.processes);
  let iterations = 0;
  return () => {
    iterations = world.decrypting.ledger.unauthenticated > limit ? iterations + 1 : 0;
    if (iterations === 3) world.report(`${world.decrypting.ledger.unauthenticated} unauthenticated clients`);
  };
}

/** Checks that a connection that nothing has disturbed has transferred everything and has closed in order. */
function checkCompleted(world: World, { client, encrypting, decrypting, target }: Route): void {
  if (client === undefined) return;
  const where = `client ${client.id}`;
  if (target === undefined) {
    world.report(`${where} was not connected: ${encrypting?.text ?? "not accepted"}, ${decrypting?.text}`);
    return;
  }
  for (const peer of [client, target]) {
    if (!peer.isDone || peer.error !== 0 || !peer.sawEnd || !peer.hasEnded) {
      world.report(`${where}: ${peer.name} ${peer.id} has not completed: error ${peer.error}`);
    }
  }
  for (const entry of [encrypting, decrypting]) {
    if (entry?.reason !== "closed") world.report(`${where}: ${entry?.mode}: ${entry?.text ?? entry?.last}`);
  }
}

/** Checks that a connection that is still open is so because of a program that stays silent. */
function checkExplained(world: World, { client, encrypting, target, isAttacked }: Route): void {
  if (client === undefined || encrypting === undefined || encrypting.last === "closed") return;
  const { scenario } = world;
  const where = `connection of client ${client.id}`;
  switch (encrypting.last) {
    case "waiting":
      if (
        world.encrypting.ledger.open.filter(({ steps }) => steps.has("connecting")).length <
        world.encryptingLimit.limit
      )
        world.report(`${where} waits for a slot although one is free`);
      return;
    case "opened":
      // If both wait for the other's end, neither ends.
      if (client.plan.ending === "last" && target?.plan.ending === "last") return;
      if (!isSilent(client) && !isSilent(target) && !isAttacked) {
        world.report(`${where} is open although neither ${client.id} nor ${target?.id} is silent`);
      }
      return;
    default:
      if (scenario.timeout !== Number.POSITIVE_INFINITY)
        world.report(`${where}: ${encrypting.last} for ever`);
  }
}

/** Returns true if a program never ends its side, does not read, or has vanished. */
function isSilent(peer: Peer | undefined): boolean {
  if (peer === undefined) return false;
  return peer.plan.ending === "never" || peer.neverReads || peer.hasBrokenOff;
}

/** Checks that a connection of the decrypting server is still open because of a program that stays silent. */
function checkServed(world: World, { port, last }: Entry): void {
  const { encrypting, decrypting, scenario, attacked, targets } = world;
  const clientPort = encrypting.clientPorts.get(port!);
  if (!encrypting.clientPorts.has(port!)) {
    if (scenario.timeout !== Number.POSITIVE_INFINITY) world.report(`D serves an intruder: ${last}`);
    return;
  }
  if (
    attacked.has(port!) ||
    (clientPort !== undefined && encrypting.ledger.byPort(clientPort)?.last !== "closed")
  )
    return;
  const target = targets.find((peer) => decrypting.clientPorts.get(peer.port!) === port);
  if (!isSilent(target)) world.report(`D: connection from ${port} is still open: ${last}`);
}

/** Checks, when all programs have ended, that everything has been given back and reported. */
export function checkAtEnd(world: World): void {
  if (world.violations.length > 0) return;
  const { report, clock, descriptors, engine, exponents } = world;
  for (const { name, ledger, accepted, connections, isDraining, isDrained, isDestroyed } of world.servers) {
    if (connections > 0) report(`${name} still has ${connections} connections`);
    for (const { port, last } of ledger.open) report(`${name}: ${port}: ${last} was the last event`);
    if (ledger.entries.size !== accepted) {
      report(`${name} has accepted ${accepted} connections and reported ${ledger.entries.size}`);
    }
    if (isDraining && !isDrained && !isDestroyed) report(`${name} has not drained`);
  }
  checkTargets(world);
  if (clock.timers.size > 0) report(`${clock.timers.size} timers are left`);
  if (clock.hasImmediates) report("immediates are left");
  if (descriptors.used > 0) report(`${descriptors.used} descriptors are left`);
  if (exponents.size > 0) report(`${exponents.size} exponents are left`);
  for (const [name, limit] of [
    ["encrypting", world.encryptingLimit],
    ["decrypting", world.decryptingLimit],
    ["key", world.keyLimit],
  ] as const) {
    if (limit.waiting > 0) report(`${limit.waiting} connections wait for a slot of the ${name} limit`);
    let isFree = false;
    limit.setLimit(1);
    limit.acquire(() => {
      isFree = true;
    });
    if (!isFree) report(`slots of the ${name} limit were not released`);
  }
  forgetInteractive(() => {
    clock.now += 1000;
  });
  const leak = findLeak(engine);
  if (leak !== undefined) report(leak);
}

/** Checks that targets were contacted for authenticated clients only. */
function checkTargets(world: World): void {
  for (const target of world.targets) {
    // A probe of the target has no client.
    if (
      !world.decrypting.clientPorts.has(target.port!) &&
      world.scenario.operations.some(({ kind }) => kind === "probe")
    )
      continue;
    const { decrypting } = routeFromTarget(world, target);
    if (decrypting?.steps.has("authenticated") !== true)
      world.report(`target ${target.id} has no authenticated client`);
  }
}
