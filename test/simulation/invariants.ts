/** What must hold in every world. */
import type { Peer } from "./peer.ts";
import { findLeak, forgetInteractive } from "./pools.ts";
import type { World } from "./world.ts";

/** Checks, when nothing happens any more by itself, that nobody waits for what will not come. */
export function checkAtRest(world: World): void {
  if (world.violations.length > 0) return;
  checkTargetsContacted(world);
}

/** Checks, when all programs have ended, that everything has been given back and reported. */
export function checkAtEnd(world: World): void {
  if (world.violations.length > 0) return;
  const { report, clock, descriptors, engine, exponents } = world;
  for (const { name, ledger, accepted, connections, isDraining, isDrained, isDestroyed } of world.servers) {
    if (connections > 0) report(`${name} still has ${connections} connections`);
    for (const { peer, last } of ledger.open)
      report(`${name}: connection from ${peer}: ${last} was the last event`);
    if (ledger.entries.size !== accepted) {
      report(`${name} has accepted ${accepted} connections and reported ${ledger.entries.size}`);
    }
    if (isDraining && !isDrained && !isDestroyed) report(`${name} has not drained`);
  }
  checkTargetsContacted(world);
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
function checkTargetsContacted({ servers, scenario, report }: World): void {
  for (const { name, ledger, dialed } of servers) {
    const allowed = ledger.count("connecting") * (1 + scenario.deadAddresses);
    if (dialed > allowed)
      report(`${name} has connected ${dialed} times for ${ledger.count("connecting")} connections`);
  }
}

/** Checks an end that has arrived as an end. */
export function checkEnd(world: World, peer: Peer): void {
  const { partner } = peer;
  if (partner === undefined) return;
  if (!partner.hasEnded)
    world.report(`${peer.name} ${peer.id}: end of a stream that ${partner.id} has not ended`);
  else if (peer.received !== partner.sent) {
    world.report(`${peer.name} ${peer.id}: end after ${peer.received} of ${partner.sent} bytes`);
  }
}
