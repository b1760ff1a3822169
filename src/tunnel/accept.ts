/** Authenticates accepted connections. */
import type { Socket } from "node:net";
import { SpipedError } from "../errors.ts";
import type { AddressList } from "../net/cidr-list.ts";
import { feed } from "../net/read-until-parsed.ts";
import { arrivalDeadline } from "../net/timers.ts";
import { HANDSHAKE_SIZE, type HandshakeOptions, ServerHandshake } from "../protocol/handshake.ts";
import { NONCE_SIZE } from "../protocol/key-schedule.ts";
import { HandshakeError } from "../protocol/protocol-error.ts";
import type { Secret } from "../protocol/secret.ts";
import type { Admission } from "./admission.ts";
import { handshakeEnd } from "./handshake-io.ts";
import type { PendingConnection } from "./pending-handshakes.ts";
import type { Priority } from "./verification-queue.ts";

/** How many keys are tried as soon as a client's proof has come, which takes less time than to accept a connection. */
const TRIALS_AT_ONCE = 16;
/** How many are tried between two looks at the clock. */
const TRIALS_PER_STEP = 16;

/** What an acceptor needs. */
export interface AcceptorOptions extends HandshakeOptions {
  /** The secrets that a client may hold, the likeliest first; called for each client when its proof has come. */
  readonly candidates: () => Iterable<Secret>;
  /** How long a client may take to prove that it holds the key, ms. */
  readonly timeout: number;
  readonly admission: Admission;
  /** Addresses that are never penalized. */
  readonly penaltyExempt?: AddressList | undefined;
}

/** A client that has proved to hold a key. */
export interface AuthenticatedClient {
  readonly secret: Secret;
  /** Its handshake; call `respond()` next. */
  readonly handshake: ServerHandshake;
}

/** Authenticates clients. */
export class Acceptor {
  readonly #options: AcceptorOptions;

  constructor(options: AcceptorOptions) {
    this.#options = options;
  }

  /**
   * Authenticates the client of an accepted socket, which must have a listener for errors.
   *
   * @param pending the socket's place among those that are not authenticated. The caller admits it.
   * @throws HandshakeError, SpipedError or the socket's error; the socket is closed by then, in silence.
   */
  async authenticate(socket: Socket, pending: PendingConnection): Promise<AuthenticatedClient> {
    const { admission, timeout, penaltyExempt } = this.#options;
    const { penalties, verifications } = admission;
    const { source, address } = pending;
    // All clients of UNIX sockets have one source.
    const isExempt = address === undefined || penaltyExempt?.includes(address) === true;
    const refuseIfPenalized = () => {
      if (isExempt || !penalties.has(source) || penalties.secretsOf(source).length > 0) return;
      throw new SpipedError("ERR_SPIPED_PENALIZED", "penalized for failed handshakes");
    };
    const trials = new Trials(this.#options.candidates, penalties.secretsOf(source));
    const handshake = new ServerHandshake(trials, this.#options);
    const cancelDeadline = arrivalDeadline(timeout, () =>
      socket.destroy(
        new HandshakeError("ERR_SPIPED_HANDSHAKE_TIMEOUT", `no handshake within ${timeout / 1000} s`, {
          awaiting: handshake.awaiting,
        }),
      ),
    );
    try {
      refuseIfPenalized();
      let secret = await receiveProof(socket, handshake, pending);
      cancelDeadline();
      if (secret === undefined) {
        const priority = () => this.#priorityOf(source);
        secret = await verifications.run(priority, () => {
          if (socket.destroyed) throw socket.errored ?? new SpipedError("ERR_SPIPED_CLOSED", "closed");
          // Others of its source may have failed while it waited.
          refuseIfPenalized();
          return handshake.tryMore(TRIALS_PER_STEP);
        });
      }
      penalties.succeeded(source, secret);
      return { secret, handshake };
    } catch (error) {
      const isWrongKey = error instanceof HandshakeError && error.code === "ERR_SPIPED_HANDSHAKE_MAC";
      if (isWrongKey && !isExempt) penalties.failed(source, trials.count);
      socket.destroy();
      throw error;
    } finally {
      cancelDeadline();
    }
  }

  #priorityOf(source: string): Priority {
    const { penalties } = this.#options.admission;
    if (penalties.isSuspect(source)) return "suspect";
    return penalties.secretsOf(source).length > 0 ? "known" : "unknown";
  }
}

/**
 * Sends our nonce and receives the client's part of the handshake.
 *
 * @returns the secret that the client holds, undefined if there are keys left to try.
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
    const progress = handshake.receive(bytes, TRIALS_AT_ONCE);
    received += progress.consumed;
    if (received === HANDSHAKE_SIZE) {
      pending.progress();
      return { consumed: progress.consumed, result: progress };
    }
    if (!hadNonce && received >= NONCE_SIZE) pending.progress();
    return { consumed: progress.consumed };
  };
  const { verified } = await feed(socket, receive, (cause) => handshakeEnd(handshake, cause));
  return verified;
}

/** The keys to try for one client: those that its source used last, then all others. */
class Trials implements Iterable<Secret> {
  /** How many were tried. */
  count = 0;
  readonly #candidates: () => Iterable<Secret>;
  readonly #likely: readonly Secret[];

  constructor(candidates: () => Iterable<Secret>, likely: readonly Secret[]) {
    this.#candidates = candidates;
    this.#likely = likely;
  }

  *[Symbol.iterator](): Iterator<Secret> {
    // The keys may change while this goes on in slices.
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
