/** What the fuzzer needs of the protocol. */
import { createNativeEngine } from "../../src/protocol/native.ts";
import { portableEngine } from "../../src/protocol/portable.ts";

export { HandshakeError } from "../../src/protocol/errors.ts";
export { ClientHandshake, ServerHandshake } from "../../src/protocol/handshake.ts";
export { Opener } from "../../src/protocol/opener.ts";
export { openedSize } from "../../src/protocol/packet.ts";
export { Sealer } from "../../src/protocol/sealer.ts";
export { Secret } from "../../src/protocol/secret.ts";

export const engines = [createNativeEngine(), portableEngine];
