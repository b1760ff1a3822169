/** What several checks expect of a program. */
import { Failure } from "./channel.mjs";

/** Throws if a plaintext side got data of a refused peer; notes a target that was connected to. */
export async function expectNoData(rig, link, note) {
  if (link.side === "client") {
    const data = await (await link.plain()).readAll("end of the plaintext side");
    if (data.length > 0) throw new Failure(`delivers ${data.length} bytes of a peer that it refuses`);
  } else if (rig.targetConnections > 0) {
    note("connects to its target before it knows whether the client has the key");
    const data = await (await link.plain()).readAll("end of the connection to the target");
    if (data.length > 0) throw new Failure(`delivers ${data.length} bytes of a peer that it refuses`);
  }
}

/** Expects the exit status of spipe: 0, or another one. Daemons do not exit. */
export async function expectStatus(link, expected) {
  if (link.exit === undefined) return;
  const status = await link.exit();
  if ((status === 0) !== (expected === 0)) throw new Failure(`exits with ${status}`);
}
