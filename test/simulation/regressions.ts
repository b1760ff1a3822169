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
  {
    name: "the client that had half-closed saw the end of an answer that the target had cut short with a reset",
    seed: 689,
    scenario: {
      ...PLAIN,
      local: {
        ...PLAIN.local,
        delay: 80,
        jitter: 8,
        maxSegment: 1460,
        sendBuffer: 16_384,
        receiveBuffer: 65_536,
      },
      clients: [{ at: 106, host: "192.0.2.4", peer: { ...ACTIVE, total: 261 }, attack: undefined }],
      targetPlans: [
        {
          ...ACTIVE,
          total: 10_279,
          maxWrite: 27_696,
          writeInterval: 2,
          ending: { action: "reset", after: 3 },
        },
      ],
    },
  },
];
