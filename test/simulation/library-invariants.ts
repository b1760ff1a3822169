/** What must hold in every world of the library. */
import { LibraryPeer } from "./library-peer.ts";
import type { LibraryWorld } from "./library-world.ts";
import type { Party, Peer } from "./peer.ts";
import { findLeak, forgetInteractive } from "./pools.ts";

type Program = Peer | LibraryPeer;

/** The programs at both ends of a connection. */
interface Route {
  readonly client: Program | undefined;
  readonly target: Program | undefined;
}

/** Finds both ends by the ports of the connections. */
function routeOf(world: LibraryWorld, program: Program): Route {
  const { topology } = world.scenario;
  const clients: readonly Program[] =
    topology === "plain" ? world.plainClients : world.attempts.map(({ peer }) => peer);
  const targets: readonly Program[] = topology === "daemon" ? world.targets : world.served;
  const clientPortOf = ({ port }: Program) =>
    topology === "library" ? port : world.daemon!.clientPorts.get(port!);
  if (program.name === "target") {
    const port = clientPortOf(program);
    return { client: clients.find((client) => client.port === port), target: program };
  }
  const { port } = program;
  return {
    client: program,
    target: port === undefined ? undefined : targets.find((target) => clientPortOf(target) === port),
  };
}

function partnerOf(world: LibraryWorld, program: Program): Program | undefined {
  const { client, target } = routeOf(world, program);
  return program.name === "client" ? target : client;
}

function isAttacked(world: LibraryWorld, program: Program): boolean {
  const port = routeOf(world, program).client?.port;
  return port !== undefined && world.attacked.has(port);
}

/** Checks that what a program receives is the stream of the program that it is connected to. */
export function checkLibraryPartner(world: LibraryWorld, program: Program, partner: Party): void {
  if (partner !== partnerOf(world, program))
    world.report(`${program.name} ${program.id} receives the stream of ${partner.id}`);
}

/** Checks an end that has arrived as an end. */
export function checkLibraryEnd(world: LibraryWorld, program: Program): void {
  if (isAttacked(world, program)) return;
  if (!(program instanceof LibraryPeer) && program.received === 0 && !wasOpened(world, program)) return;
  const partner = partnerOf(world, program);
  const where = `${program.name} ${program.id}`;
  if (partner === undefined) {
    world.report(`${where}: an end of a stream of which there is no sender`);
  } else if (!partner.hasEnded) {
    world.report(`${where}: an end of a stream that ${partner.id} has not ended`);
  } else if (program.received !== partner.sent && !hasCutItsPipe(partner)) {
    world.report(`${where}: an end after ${program.received} of the ${partner.sent} bytes of ${partner.id}`);
  }
}

/** Returns true if a program has disposed of its stream while a pipe was writing to it: the rest was never written. */
function hasCutItsPipe(program: Program): boolean {
  return program instanceof LibraryPeer && program.hasDisposed && program.plan.writer === "pipe";
}

/** Returns false if the daemon has closed the connection of a program without the library before it was open. */
function wasOpened({ daemon }: LibraryWorld, { name, port }: Program): boolean {
  const clientPort = name === "client" ? port : daemon?.clientPorts.get(port!);
  return daemon?.ledger.byPort(clientPort)?.steps.has("opened") === true;
}

function hasFailed(program: Program): boolean {
  return program instanceof LibraryPeer ? program.error !== undefined : program.error !== 0;
}

function isDone(program: Program): boolean {
  return program instanceof LibraryPeer ? program.isClosed : program.isDone;
}

/** Returns true if a program never ends its side, does not read, or has left without a trace. */
function isSilent(program: Program | undefined): boolean {
  if (program === undefined) return false;
  if (program.plan.ending === "never" || program.neverReads) return true;
  // One that breaks off with a byte that does not come stays open.
  if (program instanceof LibraryPeer) return typeof program.plan.ending === "object" && !program.hasBrokenOff;
  return program.hasBrokenOff;
}

/** Checks, when nothing happens any more by itself, that nobody waits for what will not come. */
export function checkLibraryAtRest(world: LibraryWorld): void {
  if (world.violations.length > 0) return;
  for (const { peer, outcome } of world.attempts) {
    if (outcome === "pending" && world.scenario.timeout !== Number.POSITIVE_INFINITY)
      world.report(`connect() of ${peer.id} is pending for ever`);
    if (outcome === "connected") checkConnection(world, peer);
  }
  for (const peer of world.plainClients) checkConnection(world, peer);
  for (const peer of world.served) checkClosed(world, peer);
}

function checkConnection(world: LibraryWorld, client: Program): void {
  const { target } = routeOf(world, client);
  if (world.scenario.calm) {
    if (target === undefined) world.report(`client ${client.id} was not connected`);
    else for (const program of [client, target]) checkCompleted(world, program);
    return;
  }
  if (target !== undefined && !isAttacked(world, client)) {
    if (![client, target].some((program) => isDone(program) || hasFailed(program) || program.hasBrokenOff)) {
      checkProgress(world, client, target);
      checkProgress(world, target, client);
    }
  }
  if (client instanceof LibraryPeer) checkClosed(world, client);
}

/** Checks that everything that was sent has arrived. */
function checkProgress(world: LibraryWorld, sender: Program, receiver: Program): void {
  if (receiver.neverReads) return;
  const hasDisposed = [sender, receiver].some(
    (program) => program instanceof LibraryPeer && program.hasDisposed,
  );
  if (hasDisposed) return;
  const where = `${receiver.name} ${receiver.id}`;
  if (sender.sent < sender.plan.total && !sender.hasEnded) {
    world.report(`${where} waits, ${sender.id} has sent ${sender.sent} of ${sender.plan.total} bytes`);
  } else if (receiver.received < sender.sent) {
    world.report(`${where} has received ${receiver.received} of ${sender.sent} bytes and waits for more`);
  } else if (sender.hasEnded && !receiver.sawEnd) {
    world.report(`${where} waits for the end that ${sender.id} has sent`);
  }
}

/** Checks that a connection that nothing has disturbed has transferred everything and has closed in order. */
function checkCompleted(world: LibraryWorld, program: Program): void {
  const where = `${program.name} ${program.id}`;
  if (!isDone(program) || hasFailed(program) || !program.sawEnd || !program.hasEnded)
    world.report(`${where} has not completed: ${String(program.error)}`);
  if (program.sent !== program.plan.total) world.report(`${where} has sent ${program.sent} bytes`);
  if (program instanceof LibraryPeer && program.failedWrites > 0)
    world.report(`${where}: writes have failed`);
}

/** Checks that a stream that is still open is so because of a program that stays silent. */
function checkClosed(world: LibraryWorld, peer: LibraryPeer): void {
  if (peer.socket === undefined || peer.isClosed) return;
  const partner = partnerOf(world, peer);
  if (isSilent(peer) || isSilent(partner) || isAttacked(world, peer)) return;
  if (peer.plan.ending === "last" && partner?.plan.ending === "last") return;
  world.report(`${peer.name} ${peer.id} is open although neither it nor ${partner?.id} is silent`);
}

/** Checks, when all programs have ended, that everything has been given back and reported. */
export function checkLibraryAtEnd(world: LibraryWorld): void {
  if (world.violations.length > 0) return;
  const { report, clock, descriptors, engine, exponents, journal, daemon, server } = world;
  for (const { peer, outcome } of world.attempts) {
    if (outcome === "pending") report(`connect() of ${peer.id} is pending`);
  }
  for (const peer of [...world.attempts.map(({ peer }) => peer), ...world.served]) {
    if (peer.socket === undefined) continue;
    const where = `${peer.name} ${peer.id}`;
    if (!peer.isClosed) report(`${where} is not closed`);
    if (peer.pendingCallbacks > 0)
      report(`${where}: ${peer.pendingCallbacks} write callbacks were not called`);
    if (peer.isDisposing) report(`${where}: its disposal is not complete`);
  }
  if (server !== undefined && !world.isClosed) report("the server has not closed");
  if (world.accepted !== world.served.length + world.refused)
    report(`${world.accepted} accepted, ${world.served.length} served, ${world.refused} refused`);
  if (daemon !== undefined && daemon.connections > 0)
    report(`${daemon.name} has ${daemon.connections} connections`);
  const connections = world.attempts.length + world.accepted + (daemon?.accepted ?? 0);
  if (journal.size !== connections) report(`events of ${journal.size} of ${connections} connections`);
  for (const types of journal.open) report(`a connection is not reported as closed: ${types}`);
  if (world.ciphers.size > 0) report(`the keys of ${world.ciphers.size} directions are not overwritten`);
  if (clock.timers.size > 0) report(`${clock.timers.size} timers are left`);
  if (clock.hasImmediates) report("immediates are left");
  if (descriptors.used > 0) report(`${descriptors.used} descriptors are left`);
  if (exponents.size > 0) report(`${exponents.size} exponents are left`);
  forgetInteractive(() => {
    clock.now += 1000;
  });
  const leak = findLeak(engine);
  if (leak !== undefined) report(leak);
}
