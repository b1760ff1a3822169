/** The parts of the protocol that the fuzzer uses. */
import { createNativeEngine } from "../../src/protocol/engine/native.ts";
import { portableEngine } from "../../src/protocol/engine/portable.ts";

export { ClientHandshake, ServerHandshake } from "../../src/protocol/handshake.ts";
export { Opener } from "../../src/protocol/opener.ts";
export { openedSize } from "../../src/protocol/packet.ts";
export { HandshakeError } from "../../src/protocol/protocol-error.ts";
export { Sealer } from "../../src/protocol/sealer.ts";
export { Secret } from "../../src/protocol/secret.ts";

export const engines = [createNativeEngine(), portableEngine];
