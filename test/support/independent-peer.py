"""
A second implementation of the spiped protocol, for tests: correct in both roles, and wrong on demand.

It shares neither code nor language nor libraries with the project. It was written from a description of the wire
protocol alone, and needs only Python's standard library and OpenSSL's libcrypto (for AES). Docstrings cite the sections
of that description: 1.1 shared secret, 1.3 nonces, 1.4 MAC keys of the handshake, 1.5 Diffie-Hellman messages, 1.6 weak
handshake, 1.7 session keys, 1.8 packets, 4.3 end of stream.

    independent-peer.py vectors FILE                                     checks this implementation
    independent-peer.py client --address HOST:PORT --key FILE [...]      connects, as spiped -e and spipe do
    independent-peer.py server --address HOST:PORT --key FILE [...]      accepts one connection, as spiped -d does
    independent-peer.py replay ROLE --address HOST:PORT --key FILE [...] repeats the bytes of one connection in the next
    independent-peer.py batch                                            runs the commands on standard input
    independent-peer.py daemon --address HOST:PORT --target HOST:PORT --key FILE [--weak] [...]
                                                                         is a spiped -d, until it is killed

Standard input is the data to send. The program prints one line of JSON that describes what happened, and exits with 0
unless it could not do what its arguments say. With `batch`, each line of standard input is a command with its data,
{"arguments": ["client", ...], "data": "<base64>"}, and each is answered with one line.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import ctypes.util
import fcntl
import hashlib
import hmac
import json
import secrets
import select
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

# Primitives


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def derive(secret: bytes, salt: bytes, size: int) -> bytes:
    """PBKDF2-HMAC-SHA256 with one iteration (1.4, 1.7)."""
    return hashlib.pbkdf2_hmac("sha256", secret, salt, 1, size)


def load_libcrypto() -> ctypes.CDLL:
    name = ctypes.util.find_library("crypto")
    if name is None:
        sys.exit("independent-peer.py: OpenSSL's libcrypto is not installed")
    library = ctypes.CDLL(name)
    pointer, number, data = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "EVP_CIPHER_CTX_new": (pointer, []),
        "EVP_CIPHER_CTX_free": (None, [pointer]),
        "EVP_aes_256_ctr": (pointer, []),
        "EVP_EncryptInit_ex": (number, [pointer, pointer, pointer, data, data]),
        "EVP_EncryptUpdate": (number, [pointer, data, ctypes.POINTER(number), data, number]),
    }
    for function, (result, arguments) in signatures.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    return library


LIBCRYPTO = load_libcrypto()


def aes_256_ctr(key: bytes, counter_block: bytes, data: bytes) -> bytes:
    """Encrypts or decrypts: in counter mode they are the same."""
    assert len(key) == 32 and len(counter_block) == 16
    context = LIBCRYPTO.EVP_CIPHER_CTX_new()
    try:
        output = ctypes.create_string_buffer(len(data))
        written = ctypes.c_int()
        cipher = LIBCRYPTO.EVP_aes_256_ctr()
        if (
            LIBCRYPTO.EVP_EncryptInit_ex(context, cipher, None, key, counter_block) != 1
            or LIBCRYPTO.EVP_EncryptUpdate(context, output, ctypes.byref(written), data, len(data)) != 1
            or written.value != len(data)
        ):
            raise RuntimeError("libcrypto cannot encrypt")
        return output.raw
    finally:
        LIBCRYPTO.EVP_CIPHER_CTX_free(context)


def floor_of_pi_times_2_to(bits: int) -> int:
    """Machin's formula, pi = 16 arctan(1/5) - 4 arctan(1/239), with 64 bits more than needed."""
    one = 1 << (bits + 64)

    def arctan_of_inverse(x: int) -> int:
        total, term, divisor, sign = 0, one // x, 1, 1
        while term > 0:
            total += sign * (term // divisor)
            term, divisor, sign = term // (x * x), divisor + 2, -sign
        return total

    return (16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)) >> 64


# RFC 3526 defines the prime of group 14 by this formula (1.5).
P = 2**2048 - 2**1984 - 1 + 2**64 * (floor_of_pi_times_2_to(1918) + 124476)
GENERATOR = 2


# Handshake

NONCE_SIZE = 32
VALUE_SIZE = 256
MESSAGE_SIZE = VALUE_SIZE + 32
HANDSHAKE_SIZE = NONCE_SIZE + MESSAGE_SIZE

CLIENT, SERVER = "client", "server"


def other_side(side: str) -> str:
    return SERVER if side == CLIENT else CLIENT


def shared_secret(key_file: bytes) -> bytes:
    """Returns K, the hash of all bytes of the key file (1.1)."""
    return hashlib.sha256(key_file).digest()


def handshake_mac_keys(secret: bytes, nonces: bytes) -> dict[str, bytes]:
    """Returns the keys of both sides' messages; `nonces` is the client's nonce, then the server's (1.4)."""
    derived = derive(secret, nonces, 64)
    return {CLIENT: derived[:32], SERVER: derived[32:]}


def encode_value(value: int) -> bytes:
    """Encodes a value of the group as 256 bytes, big-endian (1.5)."""
    return value.to_bytes(VALUE_SIZE, "big")


def exponent_of(private_value: bytes) -> int:
    """Returns 2^258 + x for the 32 bytes of x (1.5)."""
    assert len(private_value) == 32
    return 2**258 + int.from_bytes(private_value, "big")


@dataclass(frozen=True)
class DirectionKeys:
    """The keys of the packets of one direction (1.7)."""

    encrypt: bytes
    mac: bytes


def session_keys(secret: bytes, nonces: bytes, shared_value: int) -> dict[str, DirectionKeys]:
    """Returns the keys of the packets that each side sends (1.7)."""
    derived = derive(secret, nonces + encode_value(shared_value), 128)
    e_c, h_c, e_s, h_s = (derived[i : i + 32] for i in range(0, 128, 32))
    return {CLIENT: DirectionKeys(e_c, h_c), SERVER: DirectionKeys(e_s, h_s)}


# Packets

MAX_DATA_SIZE = 1024
CIPHERTEXT_SIZE = MAX_DATA_SIZE + 4
PACKET_SIZE = CIPHERTEXT_SIZE + 32


class PacketError(Exception):
    pass


def encode_number(number: int) -> bytes:
    return struct.pack(">Q", number)


def encrypt(keys: DirectionKeys, number: int, plaintext: bytes) -> bytes:
    """The counter block is the packet number, then the number of the cipher block (1.8)."""
    return aes_256_ctr(keys.encrypt, encode_number(number) + bytes(8), plaintext)


def packet_mac(keys: DirectionKeys, number: int, ciphertext: bytes) -> bytes:
    return hmac_sha256(keys.mac, ciphertext + encode_number(number))


def seal(
    keys: DirectionKeys, number: int, data: bytes, length: int | None = None, padding: bytes = b"\0"
) -> bytes:
    """Returns a packet (1.8). A length other than that of the data, and another padding than zeros, are wrong."""
    plaintext = data + padding * (MAX_DATA_SIZE - len(data))
    plaintext += struct.pack(">I", len(data) if length is None else length)
    ciphertext = encrypt(keys, number, plaintext)
    return ciphertext + packet_mac(keys, number, ciphertext)


def open_packet(
    keys: DirectionKeys, number: int, packet: bytes, check_padding: bool = True
) -> bytes:
    """
    Returns the data of a packet (1.8). Stricter than the protocol, unless told otherwise: the padding must be zeros, as
    senders make it.
    """
    ciphertext, mac = packet[:CIPHERTEXT_SIZE], packet[CIPHERTEXT_SIZE:]
    if not hmac.compare_digest(mac, packet_mac(keys, number, ciphertext)):
        raise PacketError(f"packet {number}: bad MAC")
    plaintext = encrypt(keys, number, ciphertext)
    (length,) = struct.unpack(">I", plaintext[MAX_DATA_SIZE:])
    if not 1 <= length <= MAX_DATA_SIZE:
        raise PacketError(f"packet {number}: length {length}")
    if check_padding and any(plaintext[length:MAX_DATA_SIZE]):
        raise PacketError(f"packet {number}: padding is not zero")
    return plaintext[:length]


# What this peer can do wrong

# Public values that no exponent gives, each with the values that the other side may compute from it as the shared one.
# For p - 1 that depends on whether the other side's exponent is even.
PUBLIC_VALUES: dict[str, tuple[int, list[int]]] = {
    "0": (0, [0]),
    "1": (1, [1]),
    "p-1": (P - 1, [1, P - 1]),
    "p": (P, [0]),
    "p+1": (P + 1, [1]),
    "max": (2**2048 - 1, []),
}


@dataclass(frozen=True)
class MessageContext:
    """What a wrong handshake message can be made of."""

    side: str
    value: bytes
    mac_keys: dict[str, bytes]
    peer_message: bytes


MESSAGE_FAULTS: dict[str, Callable[[MessageContext], bytes]] = {
    "mac-random": lambda it: it.value + secrets.token_bytes(32),
    "mac-zero": lambda it: it.value + bytes(32),
    "mac-other-side": lambda it: it.value + hmac_sha256(it.mac_keys[other_side(it.side)], it.value),
    "mac-without-key": lambda it: it.value + hmac_sha256(bytes(32), it.value),
    "mac-of-hash": lambda it: it.value + hmac_sha256(it.mac_keys[it.side], hashlib.sha256(it.value).digest()),
    "reflected": lambda it: it.peer_message,
}


def flip_bit(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 0x80 >> (bit % 8)
    return bytes(changed)


@dataclass(frozen=True)
class PacketContext:
    """What a wrong sequence of packets can be made of: `number` is that of the first wrong one."""

    own: DirectionKeys
    peer: DirectionKeys
    pieces: list[bytes]
    number: int
    argument: int

    def honest(self, number: int) -> bytes:
        return seal(self.own, number, self.pieces[number])

    def honest_from(self, number: int) -> list[bytes]:
        return [self.honest(n) for n in range(number, len(self.pieces))]

    def replaced_by(self, *packets: bytes) -> list[bytes]:
        """Returns wrong packets instead of the honest one, and then the honest ones that follow."""
        return [*packets, *self.honest_from(self.number + 1)]

    def sealed_with(self, keys: DirectionKeys, number: int | None = None) -> bytes:
        return seal(keys, self.number if number is None else number, self.pieces[self.number])

    @property
    def ciphertext(self) -> bytes:
        return self.honest(self.number)[:CIPHERTEXT_SIZE]


def random_direction_keys() -> DirectionKeys:
    return DirectionKeys(secrets.token_bytes(32), secrets.token_bytes(32))


# Each returns the packets from `number` on (1.8).
PACKET_FAULTS: dict[str, Callable[[PacketContext], list[bytes]]] = {
    "cut": lambda it: [it.honest(it.number)[: it.argument]],
    "drop": lambda it: it.honest_from(it.number + 1),
    "flip": lambda it: it.replaced_by(flip_bit(it.honest(it.number), it.argument)),
    "length": lambda it: it.replaced_by(seal(it.own, it.number, it.pieces[it.number], it.argument)),
    "mac-of-previous-number": lambda it: it.replaced_by(
        it.ciphertext + packet_mac(it.own, it.number - 1, it.ciphertext)
    ),
    "mac-without-number": lambda it: it.replaced_by(it.ciphertext + hmac_sha256(it.own.mac, it.ciphertext)),
    "mac-zero": lambda it: it.replaced_by(it.ciphertext + bytes(32)),
    "number": lambda it: it.replaced_by(it.sealed_with(it.own, it.number + it.argument)),
    "other-direction": lambda it: it.replaced_by(it.sealed_with(it.peer)),
    "other-session": lambda it: it.replaced_by(it.sealed_with(random_direction_keys())),
    "padding": lambda it: [
        seal(it.own, n, it.pieces[n], None, b"\xa5") for n in range(it.number, len(it.pieces))
    ],
    "random": lambda it: it.replaced_by(secrets.token_bytes(PACKET_SIZE)),
    "repeat": lambda it: [it.honest(it.number), *it.honest_from(it.number)],
    "shift": lambda it: it.replaced_by(b"\0" + it.honest(it.number)),
    "swap": lambda it: [it.honest(it.number + 1), it.honest(it.number), *it.honest_from(it.number + 2)],
    "swapped-keys": lambda it: it.replaced_by(it.sealed_with(DirectionKeys(it.own.mac, it.own.encrypt))),
    "zeros": lambda it: it.replaced_by(bytes(PACKET_SIZE)),
}


@dataclass(frozen=True)
class Options:
    """How to behave in one connection."""

    side: str
    secret: bytes
    weak: bool = False
    nonce: str | None = None
    wait_for_nonce: bool = False
    eager: bool = False
    public_value: str | None = None
    message_fault: str | None = None
    flip_message_bit: int | None = None
    cut_handshake: int | None = None
    writes: str = "whole"
    data: bytes = b""
    sizes: str = str(MAX_DATA_SIZE)
    packet_fault: str | None = None
    fault_at: int = 1
    wait_for_eof: bool = False
    wait_for_data: bool = False
    end: str = "fin"
    timeout: float = 20.0


# Connection


class HandshakeFailed(Exception):
    """The other side closed the connection in the handshake, or this side rejects it."""


class HandshakeCut(Exception):
    """All bytes of a handshake that is to be cut are sent."""


@dataclass
class Report:
    """What happened in one connection."""

    handshake: str = "incomplete"
    ended: str = "open"
    bytes_sent: int = 0
    bytes_received: int = 0
    data_received: int = 0
    sha256: str = ""
    packets: int = 0
    largest_packet: int = 0
    trailing_bytes: int = 0
    error: str | None = None
    send_error: str | None = None


class EncryptedSocket:
    """The encrypted socket. Counts and records what passes over it."""

    def __init__(self, connection: socket.socket, options: Options) -> None:
        self.socket = connection
        self.sent = bytearray()
        self.received = 0
        self.ended = "open"
        self.remaining: int | None = options.cut_handshake
        self._in_bytes = options.writes == "bytes"
        self._timeout = options.timeout
        self._reset_requested, self._request_reset = socket.socketpair()
        connection.settimeout(options.timeout)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Raises HandshakeCut when the number of bytes at which the handshake is to be cut has been sent."""
        if self.remaining is not None:
            data = data[: self.remaining]
            self.remaining -= len(data)
        for piece in (data[i : i + 1] for i in range(len(data))) if self._in_bytes else [data]:
            self.socket.sendall(piece)
            self.sent += piece
        if self.remaining == 0:
            raise HandshakeCut

    def receive(self, size: int) -> bytes:
        """Returns up to `size` bytes, and none when the connection has ended; `ended` then says how."""
        readable, _, _ = select.select([self.socket, self._reset_requested], [], [], self._timeout)
        if self._reset_requested in readable:
            self._reset()
            self.ended = "reset by this side"
            return b""
        if not readable:
            self.ended = "timeout"
            return b""
        try:
            data = self.socket.recv(size)
        except ConnectionResetError:
            self.ended = "reset"
            return b""
        self.received += len(data)
        if not data:
            self.ended = "eof"
        return data

    def receive_exactly(self, size: int) -> bytes:
        """Returns `size` bytes, or fewer if the connection ends."""
        data = b""
        while len(data) < size:
            more = self.receive(size - len(data))
            if not more:
                break
            data += more
        return data

    def finish(self, how: str) -> None:
        """Ends the sending direction (4.3): with a FIN, a RST, or not at all."""
        if how == "fin":
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # The other side has already reset the connection.
        elif how == "rst":
            # By the thread that receives: a socket is closed only when no thread waits for it.
            self._request_reset.close()

    def close(self) -> None:
        for each in (self.socket, self._reset_requested, self._request_reset):
            each.close()

    def _reset(self) -> None:
        # A reset discards what has not been acknowledged yet.
        deadline = time.monotonic() + self._timeout
        while self._unacknowledged() > 0 and time.monotonic() < deadline:
            time.sleep(0.002)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _unacknowledged(self) -> int:
        (size,) = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))
        return int(size)


Keys = dict[str, DirectionKeys]


class Peer:
    """One connection, in either role."""

    def __init__(self, connection: socket.socket, options: Options) -> None:
        self.options = options
        self.wire = EncryptedSocket(connection, options)
        self.report = Report()
        self._keys: Keys | None = None
        self._keys_known = threading.Event()
        self._eof_received = threading.Event()
        self._data_received = threading.Event()
        self._is_stream_sent = False

    def run(self) -> Report:
        """Runs the connection until the other side closes it, and returns what happened."""
        options, report = self.options, self.report
        sender = threading.Thread(target=self._send_stream, daemon=True)
        try:
            candidates = self._handshake()
            report.handshake = "complete"
            self._exchange(candidates, sender)
        except HandshakeFailed as failure:
            report.handshake = str(failure)
            self._drain()
        except HandshakeCut:
            report.handshake = "cut"
            self.wire.finish(options.end)
            self._drain()
        except OSError as error:
            report.error = type(error).__name__
            self.wire.ended = "reset"
        # Nothing more is received. The sender may still have data for the other side, but nothing to wait for.
        for event in (self._eof_received, self._data_received, self._keys_known):
            event.set()
        if sender.ident is not None:
            sender.join()
        self.wire.close()
        report.ended = self.wire.ended
        report.bytes_sent, report.bytes_received = len(self.wire.sent), self.wire.received
        return report

    def _drain(self) -> None:
        while self.wire.receive(65536):
            pass

    # Handshake (1.2 to 1.7)

    def _handshake(self) -> list[Keys]:
        """Returns the keys of the session; several if the other side's public value does not determine them."""
        options, wire = self.options, self.wire
        own, peer = options.side, other_side(options.side)
        nonces = self._exchange_nonces()
        mac_keys = handshake_mac_keys(options.secret, nonces[CLIENT] + nonces[SERVER])

        def keys_for(shared: int) -> Keys:
            return session_keys(options.secret, nonces[CLIENT] + nonces[SERVER], shared)

        exponent: int | None = None
        fixed: list[int] = []
        if options.public_value is not None:
            value, fixed = PUBLIC_VALUES[options.public_value]
        elif options.weak:
            value, fixed = 1, [1]
        else:
            exponent = exponent_of(secrets.token_bytes(32))
            value = pow(GENERATOR, exponent, P)

        peer_value: int | None = None
        peer_message = b""
        if own == SERVER and not options.eager:
            peer_message, peer_value = self._receive_message(mac_keys[peer])
        message = self._make_message(MessageContext(own, encode_value(value), mac_keys, peer_message))
        if options.writes == "joined":
            # With a fixed shared value, or with the client's message, the session's keys are known already.
            shared = (
                pow(peer_value, exponent, P) if exponent is not None and peer_value is not None else fixed[0]
            )
            wire.send(message + b"".join(self._packets(keys_for(shared))))
            self._is_stream_sent = True
        else:
            wire.send(message)
        wire.remaining = None
        if peer_value is None:
            _, peer_value = self._receive_message(mac_keys[peer])
        if exponent is not None:
            fixed = [pow(peer_value, exponent, P)]
        return [keys_for(shared) for shared in fixed]

    def _exchange_nonces(self) -> dict[str, bytes]:
        """Sends a nonce without waiting for the other side's, unless told otherwise (1.3)."""
        options, wire = self.options, self.wire
        own = peer = b""
        if wire.remaining == 0:
            raise HandshakeCut
        if options.wait_for_nonce or options.nonce == "reflected":
            peer = self._receive_nonce()
        if options.nonce == "reflected":
            own = peer
        else:
            own = bytes.fromhex(options.nonce) if options.nonce else secrets.token_bytes(NONCE_SIZE)
        wire.send(own)
        peer = peer or self._receive_nonce()
        return {options.side: own, other_side(options.side): peer}

    def _receive_nonce(self) -> bytes:
        nonce = self.wire.receive_exactly(NONCE_SIZE)
        if len(nonce) < NONCE_SIZE:
            raise HandshakeFailed("no nonce")
        return nonce

    def _make_message(self, context: MessageContext) -> bytes:
        """Returns `y || h` (1.5), or what is asked for instead."""
        options = self.options
        message = context.value + hmac_sha256(context.mac_keys[context.side], context.value)
        if options.message_fault is not None:
            message = MESSAGE_FAULTS[options.message_fault](context)
        if options.flip_message_bit is not None:
            message = flip_bit(message, options.flip_message_bit)
        return message

    def _receive_message(self, mac_key: bytes) -> tuple[bytes, int]:
        """Validates the MAC and then the range of the other side's value (1.5)."""
        message = self.wire.receive_exactly(MESSAGE_SIZE)
        if len(message) < MESSAGE_SIZE:
            raise HandshakeFailed("no message")
        value, mac = message[:VALUE_SIZE], message[VALUE_SIZE:]
        if not hmac.compare_digest(mac, hmac_sha256(mac_key, value)):
            raise HandshakeFailed("bad MAC")
        if value >= encode_value(P):
            raise HandshakeFailed("value out of range")
        return message, int.from_bytes(value, "big")

    # Packets (1.8) and the end of the stream (4.3)

    def _pieces(self) -> Iterator[bytes]:
        """Cuts the data into packets of one size, or of all sizes from 1 to 1024 in turn."""
        data, sizes = self.options.data, self.options.sizes
        position, size = 0, 1 if sizes == "all" else int(sizes)
        while position < len(data):
            yield data[position : position + size]
            position += size
            if sizes == "all":
                size = size % MAX_DATA_SIZE + 1

    def _packets(self, keys: Keys) -> list[bytes]:
        options = self.options
        name, _, argument = (options.packet_fault or "").partition(":")
        own, peer = keys[options.side], keys[other_side(options.side)]
        first_wrong = options.fault_at if name else 0
        context = PacketContext(own, peer, list(self._pieces()), first_wrong, int(argument or 0))
        if not name:
            return context.honest_from(0)
        return [context.honest(n) for n in range(first_wrong)] + PACKET_FAULTS[name](context)

    def _send_stream(self) -> None:
        options, wire = self.options, self.wire
        try:
            if options.wait_for_eof:
                self._eof_received.wait()
            if options.wait_for_data:
                self._data_received.wait()
            self._keys_known.wait()
            if self._keys is not None and not self._is_stream_sent:
                for packet in self._packets(self._keys):
                    wire.send(packet)
            wire.finish(options.end)
        except OSError as error:
            self.report.send_error = type(error).__name__

    def _use_keys(self, keys: Keys) -> None:
        self._keys = keys
        self._keys_known.set()

    def _exchange(self, candidates: list[Keys], sender: threading.Thread) -> None:
        report, peer = self.report, other_side(self.options.side)
        digest = hashlib.sha256()
        buffer = b""
        if len(candidates) == 1:
            self._use_keys(candidates[0])
        elif not candidates:
            self._keys_known.set()
        sender.start()
        try:
            while received := self.wire.receive(65536):
                buffer += received
                while len(buffer) >= PACKET_SIZE:
                    packet, buffer = buffer[:PACKET_SIZE], buffer[PACKET_SIZE:]
                    if self._keys is None:
                        self._use_keys(matching_keys(candidates, peer, packet))
                    assert self._keys is not None
                    data = open_packet(self._keys[peer], report.packets, packet)
                    digest.update(data)
                    report.packets += 1
                    report.data_received += len(data)
                    report.largest_packet = max(report.largest_packet, len(data))
                    self._data_received.set()
        except PacketError as error:
            report.error = str(error)
        report.trailing_bytes = len(buffer)
        report.sha256 = digest.hexdigest()


def matching_keys(candidates: list[Keys], side: str, packet: bytes) -> Keys:
    """Returns the keys with which a side has sent its first packet."""
    for keys in candidates:
        try:
            open_packet(keys[side], 0, packet)
            return keys
        except PacketError:
            continue
    raise PacketError("packet 0: bad MAC")


# A decrypting daemon


@dataclass(frozen=True)
class DaemonOptions:
    """How the daemon serves its connections: the options -t, -k, -f, -g and -o of spiped."""

    target: tuple[str, int]
    secret: bytes
    weak: bool
    require_forward_secrecy: bool
    timeout: float


class ConnectionDropped(Exception):
    """A connection whose two sockets must be closed now (4.1, 4.2)."""


def receive_until(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Returns `size` bytes, or drops the connection if it ends or the time is up before."""
    data = b""
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ConnectionDropped
        connection.settimeout(left)
        received = connection.recv(size - len(data))
        if not received:
            raise ConnectionDropped
        data += received
    connection.settimeout(None)
    return data


def accept_handshake(connection: socket.socket, options: DaemonOptions) -> tuple[Keys, bytes]:
    """Validates the client's part of the handshake; returns the keys and this side's message, which is not sent yet."""
    deadline = time.monotonic() + options.timeout
    own = secrets.token_bytes(NONCE_SIZE)
    connection.sendall(own)
    nonces = receive_until(connection, NONCE_SIZE, deadline) + own
    mac_keys = handshake_mac_keys(options.secret, nonces)
    message = receive_until(connection, MESSAGE_SIZE, deadline)
    value, mac = message[:VALUE_SIZE], message[VALUE_SIZE:]
    is_valid = hmac.compare_digest(mac, hmac_sha256(mac_keys[CLIENT], value)) and value < encode_value(P)
    if not is_valid or (options.require_forward_secrecy and value == encode_value(1)):
        raise ConnectionDropped
    exponent = exponent_of(secrets.token_bytes(32))
    own_value = encode_value(1 if options.weak else pow(GENERATOR, exponent, P))
    shared = 1 if options.weak else pow(int.from_bytes(value, "big"), exponent, P)
    return session_keys(options.secret, nonces, shared), own_value + hmac_sha256(mac_keys[SERVER], own_value)


def serve_connection(connection: socket.socket, options: DaemonOptions) -> None:
    """Serves one connection: unlike Tarsnap's spiped, connects to the target when the client is authenticated."""
    sockets = [connection]
    try:
        keys, message = accept_handshake(connection, options)
        target = socket.create_connection(options.target, options.timeout)
        target.settimeout(None)
        sockets.append(target)
        connection.sendall(message)
        for each in sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sealing = threading.Thread(target=seal_stream, args=(target, connection, keys[SERVER]), daemon=True)
        sealing.start()
        open_stream(connection, target, keys[CLIENT])
        sealing.join()
    except (ConnectionDropped, OSError):
        pass
    for each in sockets:
        # Wakes the thread that may be waiting for it.
        shut_down(each, socket.SHUT_RDWR)
        each.close()


def shut_down(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:
        pass  # The other side has reset the connection.


def seal_stream(source: socket.socket, destination: socket.socket, keys: DirectionKeys) -> None:
    """Encrypts what one socket receives, until its end; on an error, ends both sockets (4.2, 4.3)."""
    number = 0
    try:
        while data := source.recv(4096):
            pieces = [data[i : i + MAX_DATA_SIZE] for i in range(0, len(data), MAX_DATA_SIZE)]
            destination.sendall(b"".join(seal(keys, number + i, piece) for i, piece in enumerate(pieces)))
            number += len(pieces)
        shut_down(destination, socket.SHUT_WR)
    except OSError:
        for each in (source, destination):
            shut_down(each, socket.SHUT_RDWR)


def open_stream(source: socket.socket, destination: socket.socket, keys: DirectionKeys) -> None:
    """Decrypts what one socket receives, until its end. An incomplete packet at the end is ignored (1.8)."""
    number, buffer = 0, b""
    while received := source.recv(65536):
        buffer += received
        while len(buffer) >= PACKET_SIZE:
            packet, buffer = buffer[:PACKET_SIZE], buffer[PACKET_SIZE:]
            try:
                destination.sendall(open_packet(keys, number, packet, check_padding=False))
            except PacketError as error:
                raise ConnectionDropped from error
            number += 1
    shut_down(destination, socket.SHUT_WR)


def run_daemon(arguments: argparse.Namespace) -> NoReturn:
    with open(arguments.key, "rb") as file:
        secret = shared_secret(file.read())
    options = DaemonOptions(
        arguments.target, secret, arguments.weak, arguments.require_forward_secrecy, arguments.timeout
    )
    with socket.create_server(arguments.address, backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_connection, args=(connection, options), daemon=True).start()


# Test vectors


class Mismatches:
    def __init__(self) -> None:
        self.checked = 0
        self.names: list[str] = []

    def check(self, name: str, actual: Any, expected: Any) -> None:
        self.checked += 1
        if (actual.hex() if isinstance(actual, bytes) else actual) != expected:
            self.names.append(name)


def check_party(
    found: Mismatches, where: str, party: dict[str, Any], mac_key: bytes
) -> tuple[int, int | None]:
    """Checks one side's message (1.5, 1.6) and returns its public value and its exponent, if it has one."""
    exponent = None if party["weak"] else exponent_of(bytes.fromhex(party["private_x"]))
    value = 1 if exponent is None else pow(GENERATOR, exponent, P)
    mac = hmac_sha256(mac_key, encode_value(value))
    found.check(f"{where} y", encode_value(value), party["y"])
    found.check(f"{where} MAC", mac, party["mac"])
    found.check(f"{where} message", encode_value(value) + mac, party["message_288"])
    return value, exponent


def check_packet(found: Mismatches, where: str, vector: dict[str, Any], keys: Keys) -> None:
    """Checks that a packet is made, and opened, as the vector says (1.8)."""
    side = CLIENT if vector["direction"] == "client_to_server" else SERVER
    number, data = vector["packet_number"], bytes.fromhex(vector["plaintext"])
    packet = seal(keys[side], number, data)
    found.check(f"{where} length", len(data), vector["length"])
    found.check(f"{where} ciphertext", packet[:CIPHERTEXT_SIZE], vector["ciphertext_1028"])
    found.check(f"{where} MAC", packet[CIPHERTEXT_SIZE:], vector["mac"])
    found.check(f"{where} packet", packet, vector["packet_1060"])
    try:
        opened = open_packet(keys[side], number, bytes.fromhex(vector["packet_1060"]))
    except PacketError as error:
        opened = str(error).encode()
    found.check(f"{where} opened", opened, vector["plaintext"])


def check_vectors(vectors: dict[str, Any]) -> Mismatches:
    """Compares this implementation with every value of the test vectors."""
    found = Mismatches()
    secret = shared_secret(bytes.fromhex(vectors["key_file"]))
    nonces = bytes.fromhex(vectors["nonce_client"]) + bytes.fromhex(vectors["nonce_server"])
    mac_keys = handshake_mac_keys(secret, nonces)
    found.check("prime", encode_value(P), vectors["group14_prime"])
    found.check("K", secret, vectors["K"])
    found.check("K of an empty file", shared_secret(b""), vectors["key_file_hash_examples"]["empty"])
    found.check("K of abc", shared_secret(b"abc\n"), vectors["key_file_hash_examples"]["abc_newline"])
    found.check("dk1", mac_keys[CLIENT] + mac_keys[SERVER], vectors["dk1"])
    found.check("dhmac_C", mac_keys[CLIENT], vectors["dhmac_C"])
    found.check("dhmac_S", mac_keys[SERVER], vectors["dhmac_S"])

    strong: Keys | None = None
    for mode, vector in vectors["modes"].items():
        y_c, exponent_c = check_party(found, f"{mode} client", vector["client"], mac_keys[CLIENT])
        y_s, exponent_s = check_party(found, f"{mode} server", vector["server"], mac_keys[SERVER])
        at_client = 1 if exponent_c is None else pow(y_s, exponent_c, P)
        at_server = 1 if exponent_s is None else pow(y_c, exponent_s, P)
        found.check(f"{mode} y_sc at the client", encode_value(at_client), vector["y_sc"])
        found.check(f"{mode} y_sc at the server", encode_value(at_server), vector["y_sc"])
        keys = session_keys(secret, nonces, at_client)
        if mode == "strong":
            strong = keys
        own = [keys[CLIENT].encrypt, keys[CLIENT].mac, keys[SERVER].encrypt, keys[SERVER].mac]
        found.check(f"{mode} dk2", b"".join(own), vector["dk2"])
        for name, key in zip(("E_C", "H_C", "E_S", "H_S"), own):
            found.check(f"{mode} {name}", key, vector[name])
        for packet in vector["packets"]:
            check_packet(found, f"{mode} {packet['direction']} {packet['packet_number']}", packet, keys)

    rejects = vectors["rejects"]
    found.check("y = p", encode_value(P), rejects["y_equal_p"])
    for name, value in (
        ("y_equal_p_mac_client", P),
        ("accepted_y_p_minus_1_mac_client", P - 1),
        ("accepted_y_zero_mac_client", 0),
    ):
        found.check(name, hmac_sha256(mac_keys[CLIENT], encode_value(value)), rejects[name])
    assert strong is not None
    for length in (0, 1025):
        packet = seal(strong[CLIENT], 0, b"", length)
        found.check(f"length {length}", packet, rejects[f"strong_c2s_pn0_length_{length}"])
        try:
            open_packet(strong[CLIENT], 0, packet)
            outcome = "accepted"
        except PacketError as error:
            outcome = str(error)
        found.check(f"length {length} is rejected", outcome, f"packet 0: length {length}")
    return found


# Command line


def parse_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def connections(
    side: str, address: tuple[str, int], count: int, timeout: float
) -> Generator[socket.socket, None, None]:
    """Connects, or listens and accepts, `count` times."""
    if side == CLIENT:
        for _ in range(count):
            yield socket.create_connection(address, timeout)
        return
    with socket.create_server(
        address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    ) as listener:
        listener.settimeout(timeout)
        for _ in range(count):
            yield listener.accept()[0]


def send_again(recorded: bytes, connection: socket.socket, options: Options) -> Report:
    """Sends the bytes of an earlier connection, whatever the other side sends."""
    wire = EncryptedSocket(connection, options)
    report = Report(handshake="replayed")
    try:
        wire.send(recorded)
    except OSError as error:
        report.send_error = type(error).__name__
    while wire.receive(65536):
        pass
    wire.close()
    report.ended, report.bytes_sent, report.bytes_received = wire.ended, len(wire.sent), wire.received
    return report


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An independent peer of the spiped protocol.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("vectors", help="check this implementation").add_argument("file")

    connection = argparse.ArgumentParser(add_help=False)
    add = connection.add_argument
    add("--address", type=parse_address, required=True, help="HOST:PORT to connect to, or to listen on")
    add("--key", required=True, help="key file")
    add("--weak", action="store_true", help="weak handshake, as -f")
    add(
        "--sizes",
        default=str(MAX_DATA_SIZE),
        help="data bytes in each packet, or `all` for 1, 2, ... 1024 in turn",
    )
    add(
        "--wait-for-nonce", action="store_true", help="send nothing before the other side's nonce is received"
    )
    add("--wait-for-eof", action="store_true", help="send data after the other side has ended its direction")
    add("--wait-for-data", action="store_true", help="send data after the other side has sent some")
    add("--eager", action="store_true", help="server: send the message before the client's is received")
    add(
        "--writes",
        choices=["whole", "bytes", "joined"],
        default="whole",
        help="write messages whole, byte by byte, or the last handshake message together with all packets",
    )
    add("--end", choices=["fin", "rst", "hold"], default="fin", help="what to do when all is sent")
    add("--timeout", type=float, default=20.0, help="how long to wait for the other side, in seconds")
    add("--nonce", help="64 hexadecimal digits instead of a random nonce, or `reflected`")
    add("--public-value", choices=list(PUBLIC_VALUES), help="Diffie-Hellman value, with a valid MAC")
    add("--message-fault", choices=list(MESSAGE_FAULTS), help="wrong handshake message")
    add("--flip-message-bit", type=int, help="flip bit 0 to 2303 of the handshake message")
    add("--cut-handshake", type=int, help="send only this many of the 320 bytes, then do as --end says")
    add("--packet-fault", help=f"NAME or NAME:NUMBER; the names are {', '.join(PACKET_FAULTS)}")
    add("--fault-at", type=int, default=1, help="number of the first wrong packet")

    for side in (CLIENT, SERVER):
        commands.add_parser(side, parents=[connection], help=f"be a {side}").set_defaults(side=side)
    replay = commands.add_parser("replay", parents=[connection], help="repeat a connection")
    replay.add_argument("side", choices=[CLIENT, SERVER])
    commands.add_parser("batch", help="run the commands on standard input")
    daemon = commands.add_parser("daemon", help="be a spiped -d")
    daemon.add_argument("--address", type=parse_address, required=True, help="HOST:PORT to listen on")
    daemon.add_argument("--target", type=parse_address, required=True, help="HOST:PORT to connect to")
    daemon.add_argument("--key", required=True, help="key file")
    daemon.add_argument("--weak", action="store_true", help="weak handshake, as -f")
    daemon.add_argument("--require-forward-secrecy", action="store_true", help="reject weak clients, as -g")
    daemon.add_argument("--timeout", type=float, default=5.0, help="as -o, in seconds")
    arguments = parser.parse_args(words)
    is_joined = getattr(arguments, "writes", None) == "joined"
    if is_joined and arguments.side == CLIENT and not arguments.weak:
        parser.error(
            "only the client of a weak handshake knows the session's keys before the server's message"
        )
    return arguments


def run_connections(arguments: argparse.Namespace, data: bytes) -> Report:
    with open(arguments.key, "rb") as file:
        secret = shared_secret(file.read())
    names = Options.__dataclass_fields__.keys() - {"secret", "data"}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    options = Options(secret=secret, data=data, **given)
    count = 2 if arguments.command == "replay" else 1
    source = connections(options.side, arguments.address, count, options.timeout)
    peer = Peer(next(source), options)
    report = peer.run()
    if arguments.command == "replay":
        if report.handshake != "complete":
            fail(f"there is nothing to replay: {report}")
        report = send_again(bytes(peer.wire.sent), next(source), options)
    source.close()
    return report


def fail(message: str) -> NoReturn:
    sys.exit(f"independent-peer.py: {message}")


def run_batch() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        report = run_connections(parse_arguments(command["arguments"]), base64.b64decode(command["data"]))
        print(json.dumps(vars(report)), flush=True)


def main() -> int:
    arguments = parse_arguments()
    if arguments.command == "vectors":
        with open(arguments.file, encoding="utf-8") as file:
            found = check_vectors(json.load(file))
        print(json.dumps({"checked": found.checked, "mismatches": found.names}))
        return 1 if found.names else 0
    try:
        if arguments.command == "batch":
            run_batch()
        elif arguments.command == "daemon":
            run_daemon(arguments)
        else:
            print(json.dumps(vars(run_connections(arguments, sys.stdin.buffer.read()))))
    except OSError as error:
        fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
