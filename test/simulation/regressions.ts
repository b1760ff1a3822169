/** Worlds in which defects were found, as `npm run simulate -- --seed N --shrink` simplifies them. */
import type { PeerPlan } from "./peer.ts";
import { PLAIN, type Scenario } from "./scenario.ts";

export interface Regression {
  readonly name: string;
  readonly seed: number;
  readonly scenario: Scenario;
}

const ACTIVE: PeerPlan = {
  total: 200,
  maxWrite: 65_536,
  writeInterval: 0,
  maxRead: 65_536,
  readInterval: 0,
  readDelay: 0,
  ending: "orderly",
};

export const REGRESSIONS: readonly Regression[] = [
  {
    name: "the target saw the end of an empty stream when the client gave up the handshake",
    seed: 81,
    scenario: {
      ...PLAIN,
      timeout: 300,
      wire: { ...PLAIN.wire, delay: 80, maxSegment: 65_536, sendBuffer: 200, receiveBuffer: 4096 },
      clients: [{ at: 0, host: "192.0.2.3", peer: { ...ACTIVE, ending: "never" }, attack: undefined }],
      targetPlans: [ACTIVE],
    },
  },
];
