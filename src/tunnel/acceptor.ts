/**
 * The accepting side's door: strangers are verified in a bounded room of their own, and only who has proved to hold
 * the key is let through.
 */
import type { Socket } from "node:net";
import { HandshakeError, SpipedError } from "../protocol/errors.ts";
import { type HandshakeOptions, ServerHandshake } from "../protocol/handshake.ts";
import type { Secret } from "../protocol/secret.ts";
import { deadline } from "./deadline.ts";
import { verifyClient } from "./handshake.ts";
import { WaitingRoom } from "./waiting-room.ts";

/** How many strangers may wait, in all and from one address. */
const ROOM_CAPACITY = 1024;
const ROOM_SHARE = 512;

/** What an acceptor needs. */
export interface AcceptorOptions extends HandshakeOptions {
  /** The secrets that a client may hold, the likeliest first; asked for anew for each client. */
  readonly candidates: () => Iterable<Secret>;
  /** How long a client may take to prove that it holds the key, ms. */
  readonly timeout: number;
}

/** A client that has proved to hold a key. */
export interface VerifiedClient {
  readonly secret: Secret;
  /** Its handshake, whose `respond()` is due. */
  readonly handshake: ServerHandshake;
}

/** Lets clients in. */
export class Acceptor {
  readonly #options: AcceptorOptions;
  readonly #room = new WaitingRoom(ROOM_CAPACITY, ROOM_SHARE);

  constructor(options: AcceptorOptions) {
    this.#options = options;
  }

  /** How many strangers wait. */
  get strangers(): number {
    return this.#room.size;
  }

  /**
   * Verifies an accepted socket, which must have a listener for errors.
   *
   * @param address the client's, which its share of the waiting room is counted by.
   * @throws HandshakeError or the socket's error; the socket is closed by then, in silence.
   */
  async verify(socket: Socket, address = socket.remoteAddress): Promise<VerifiedClient> {
    const { candidates, timeout } = this.#options;
    const handshake = new ServerHandshake(candidates(), this.#options);
    const leave = this.#room.enter(address ?? "", () =>
      socket.destroy(new SpipedError("ERR_SPIPED_EVICTED", "too many strangers at the door")),
    );
    const cancelDeadline = deadline(timeout, () =>
      socket.destroy(
        new HandshakeError("ERR_SPIPED_HANDSHAKE_TIMEOUT", `no handshake within ${timeout / 1000} s`),
      ),
    );
    try {
      const secret = await verifyClient(socket, handshake);
      return { secret, handshake };
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      cancelDeadline();
      leave();
    }
  }
}
