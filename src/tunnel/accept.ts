/** Authenticates accepted connections. */
import type { Socket } from "node:net";
import type { AddressList } from "../net/cidr-list.ts";
import { readUntilParsed } from "../net/read-until-parsed.ts";
import { startArrivalTimeout } from "../net/timers.ts";
import { HANDSHAKE_SIZE, type HandshakeOptions, ServerHandshake } from "../protocol/handshake.ts";
import { NONCE_SIZE } from "../protocol/key-schedule.ts";
import { HandshakeError } from "../protocol/protocol-error.ts";
import type { Secret } from "../protocol/secret.ts";
import type { Admission } from "./admission.ts";
import { handshakeEofError } from "./handshake-io.ts";
import type { PendingConnection } from "./pending-handshakes.ts";
import { RejectedError } from "./tunnel-error.ts";
import type { Priority } from "./verification-queue.ts";

/** Keys tried immediately when a client's proof arrives; takes less time than accepting a connection. */
const INITIAL_TRIALS = 16;
/** Keys tried per step of the verification queue, between two clock checks. */
const TRIALS_PER_STEP = 16;

/** Options for an Acceptor. */
export interface AcceptorOptions extends HandshakeOptions {
  /** Returns the secrets to try, most likely first; called for each client when its proof arrives. */
  readonly candidates: () => Iterable<Secret>;
  /** Maximum time until a client's proof of the key arrives, in ms. */
  readonly timeout: number;
  readonly admission: Admission;
  /** Addresses that are never penalized. */
  readonly penaltyExempt?: AddressList | undefined;
}

/** A client that has proved that it holds a key. */
export interface AuthenticatedClient {
  readonly secret: Secret;
  /** The client's handshake; call `respond()` next. */
  readonly handshake: ServerHandshake;
}

/** Authenticates the clients of a server. */
export class Acceptor {
  readonly #options: AcceptorOptions;

  constructor(options: AcceptorOptions) {
    this.#options = options;
  }

  /**
   * Authenticates the client of an accepted socket, which must have an 'error' listener.
   *
   * @param pending - the socket's entry among the pending connections. The caller admits it.
   * @throws HandshakeError, RejectedError or the socket's error. The socket is then closed; the peer gets no reason.
   */
  async authenticate(socket: Socket, pending: PendingConnection): Promise<AuthenticatedClient> {
    const { admission, timeout, penaltyExempt } = this.#options;
    const { penalties, verifications } = admission;
    const { source, address } = pending;
    // All clients of UNIX sockets have one source.
    const isExempt = address === undefined || penaltyExempt?.includes(address) === true;
    const rejectIfPenalized = () => {
      if (isExempt || !penalties.has(source) || penalties.secretsOf(source).length > 0) return;
      throw new RejectedError("ERR_SPIPED_PENALIZED", "penalized");
    };
    const trials = new KeyTrials(this.#options.candidates, penalties.secretsOf(source));
    const handshake = new ServerHandshake(trials, this.#options);
    const cancelTimeout = startArrivalTimeout(timeout, () =>
      socket.destroy(
        new HandshakeError("ERR_SPIPED_HANDSHAKE_TIMEOUT", `no handshake within ${timeout / 1000} s`, {
          awaiting: handshake.awaiting,
        }),
      ),
    );
    try {
      rejectIfPenalized();
      let secret = await receiveProof(socket, handshake, pending);
      cancelTimeout();
      if (secret === undefined) {
        const priority = () => this.#priorityOf(source);
        secret = await verifications.run(priority, () => {
          if (socket.destroyed)
            throw socket.errored ?? new RejectedError("ERR_SPIPED_CLOSED", "closed-early");
          // Other clients of the source may have failed in the meantime.
          rejectIfPenalized();
          return handshake.tryMoreKeys(TRIALS_PER_STEP);
        });
      }
      penalties.recordSuccess(source, secret);
      return { secret, handshake };
    } catch (error) {
      const isWrongKey = error instanceof HandshakeError && error.code === "ERR_SPIPED_HANDSHAKE_MAC";
      if (isWrongKey && !isExempt) penalties.recordFailure(source, trials.count);
      socket.destroy();
      throw error;
    } finally {
      cancelTimeout();
    }
  }

  #priorityOf(source: string): Priority {
    const { penalties } = this.#options.admission;
    if (penalties.isSuspect(source)) return "suspect";
    return penalties.secretsOf(source).length > 0 ? "known" : "unknown";
  }
}

/**
 * Sends the server's nonce and receives the client's nonce and proof.
 *
 * @returns the secret that the client holds; undefined if there are keys left to try.
 */
async function receiveProof(
  socket: Socket,
  handshake: ServerHandshake,
  pending: PendingConnection,
): Promise<Secret | undefined> {
  let received = 0;
  socket.write(handshake.nonce);
  const receive = (bytes: Buffer) => {
    const hadNonce = received >= NONCE_SIZE;
    const progress = handshake.receive(bytes, INITIAL_TRIALS);
    received += progress.consumed;
    if (received === HANDSHAKE_SIZE) {
      pending.recordProgress();
      return { consumed: progress.consumed, result: progress };
    }
    if (!hadNonce && received >= NONCE_SIZE) pending.recordProgress();
    return { consumed: progress.consumed };
  };
  const { verified } = await readUntilParsed(socket, receive, (cause) => handshakeEofError(handshake, cause));
  return verified;
}

/** The keys to try for one client: those last used by its source, then all others. */
class KeyTrials implements Iterable<Secret> {
  /** Number of keys tried. */
  count = 0;
  readonly #candidates: () => Iterable<Secret>;
  readonly #likely: readonly Secret[];

  constructor(candidates: () => Iterable<Secret>, likely: readonly Secret[]) {
    this.#candidates = candidates;
    this.#likely = likely;
  }

  *[Symbol.iterator](): Iterator<Secret> {
    // A copy, since the keys may change between slices.
    const candidates = new Set(this.#candidates());
    const likely = this.#likely.filter((secret) => candidates.has(secret));
    for (const secret of likely) {
      candidates.delete(secret);
      this.count += 1;
      yield secret;
    }
    for (const secret of candidates) {
      this.count += 1;
      yield secret;
    }
  }
}
