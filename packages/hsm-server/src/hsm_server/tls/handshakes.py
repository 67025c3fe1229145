# SPDX-License-Identifier: MIT
"""
TLS handshakes: ClientHello, key exchange groups, and the outcome of a connection.

OpenSSL silently ignores unknown group names and unread configuration. `check_groups`
sends a ClientHello with one group and no key share: OpenSSL must answer with a
HelloRetryRequest for that group, or with an alert.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from cryptography import x509

from hsm_server.config.exit_codes import ListenError
from hsm_server.tls.state import ClientRules

MAX_HELLO_BYTES: Final = 16 * 1024
"""Maximum length of a parsed ClientHello."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME: Final = 0
_MAX_RECORD: Final = 16384
_VERSION_AND_RANDOM: Final = 2 + 32


class MalformedHelloError(ValueError):
    """The message is not a valid ClientHello."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """
    Parsed ClientHello.

    Attributes:
        server_name: Host name, lower case, or empty.
        protocols: Application protocols, in the client's order.
    """

    server_name: str
    protocols: tuple[bytes, ...]


class _Reader:
    """Reader of a byte string."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        """Take this many bytes."""
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise MalformedHelloError
        self._at += length
        return taken

    def number(self, length: int) -> int:
        """Take a big-endian number of so many bytes."""
        return int.from_bytes(self.take(length), "big")

    def vector(self, length: int) -> bytes:
        """Take what is preceded by its own length, in so many bytes."""
        return self.take(self.number(length))


def read_hello(data: bytes) -> ClientHello | None:
    """
    Read the beginning of what a client has sent.

    Returns:
        What it asks for, or None as long as not all has arrived.

    Raises:
        MalformedHelloError: It begins with something else.

    Standard:
        RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3; RFC 7301, section 3.1.
    """
    message = _message(data)
    if message is None:
        return None
    reader = _Reader(message)
    reader.take(_VERSION_AND_RANDOM)
    reader.vector(1)  # session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression methods
    extensions = dict(_extensions(_Reader(reader.vector(2)))) if reader else {}
    if reader:
        raise MalformedHelloError
    return ClientHello(
        server_name=_server_name(extensions.get(_SERVER_NAME)),
        protocols=_protocols(extensions.get(_ALPN)),
    )


def _message(data: bytes) -> bytes | None:
    """Return the body of the first handshake message, joined from its records."""
    stream, at = b"", 0
    while True:
        if len(stream) >= 4:
            if stream[0] != _CLIENT_HELLO:
                raise MalformedHelloError
            end = 4 + int.from_bytes(stream[1:4], "big")
            if end > MAX_HELLO_BYTES:
                raise MalformedHelloError
            if len(stream) >= end:
                return stream[4:end]
        head = data[at : at + 5]
        if head[:1] and head[0] != _HANDSHAKE:
            raise MalformedHelloError
        if len(head) < 5:
            return None
        length = int.from_bytes(head[3:5], "big")
        if not 0 < length <= _MAX_RECORD:
            raise MalformedHelloError
        stream += data[at + 5 : at + 5 + length]
        if len(data) < at + 5 + length:
            return None
        at += 5 + length


def _extensions(reader: _Reader) -> Iterator[tuple[int, bytes]]:
    seen = set()
    while reader:
        kind = reader.number(2)
        if kind in seen:
            raise MalformedHelloError
        seen.add(kind)
        yield kind, reader.vector(2)


def _server_name(extension: bytes | None) -> str:
    if extension is None:
        return ""
    names = _Reader(_whole(extension, 2))
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            return _text(name)
    return ""


def _text(name: bytes) -> str:
    try:
        return name.decode("ascii").lower()
    except UnicodeDecodeError:
        raise MalformedHelloError from None


def _protocols(extension: bytes | None) -> tuple[bytes, ...]:
    if extension is None:
        return ()
    reader, names = _Reader(_whole(extension, 2)), []
    while reader:
        names.append(reader.vector(1))
    return tuple(names)


def _whole(extension: bytes, length: int) -> bytes:
    """Return the one vector that an extension consists of."""
    reader = _Reader(extension)
    vector = reader.vector(length)
    if reader:
        raise MalformedHelloError
    return vector


HYBRID: Final = {
    "X25519MLKEM768": 0x11EC,
    "SecP256r1MLKEM768": 0x11EB,
    "SecP384r1MLKEM1024": 0x11ED,
}
"""Curves and ML-KEM groups by number, in order of preference."""

CLASSICAL: Final = {"x25519": 0x001D, "secp256r1": 0x0017, "secp384r1": 0x0018}
"""Groups for clients without ML-KEM."""

GROUPS: Final = HYBRID | CLASSICAL

_SECP521R1: Final = 0x0019
_RETRY_RANDOM: Final = hashlib.sha256(b"HelloRetryRequest").digest()
_KEY_SHARE, _SUPPORTED_VERSIONS = 51, 43
_SUPPORTED_GROUPS, _SIGNATURE_ALGORITHMS = 10, 13
_TLS_1_2, _TLS_1_3 = 0x0303, 0x0304
_CIPHERS: Final = (0x1301, 0x1302, 0x1303)
_SIGNATURES: Final = (0x0403, 0x0503, 0x0804, 0x0805, 0x0806, 0x0807)
_SIGNATURES_ML_DSA: Final = (0x0904, 0x0905, 0x0906)


def check_groups(answer: Callable[[bytes], bytes]) -> None:
    """
    Check that exactly these groups are served, and hybrid ones preferred.

    Args:
        answer: Server side of a handshake in memory: returns the response to the first
            bytes of a client, including alerts.

    Raises:
        ListenError: It is not so; the message says what differs.

    Standard:
        draft-ietf-tls-ecdhe-mlkem; RFC 8446, section 4.1.4.
    """
    for name, number in GROUPS.items():
        if selected(answer, [number]) != number:
            raise ListenError(
                f"OpenSSL does not support the group {name}: cryptography was "
                "loaded before the listener's TLS, or was built with an older "
                "OpenSSL."
            )
    if selected(answer, [_SECP521R1]) is not None:
        raise ListenError("OpenSSL offers the group P-521, which is not configured.")
    wanted = list(HYBRID.values())
    for first in range(len(wanted)):
        offered = [*CLASSICAL.values(), *reversed(wanted[first:])]
        if selected(answer, offered) != wanted[first]:
            raise ListenError("OpenSSL does not prefer the ML-KEM groups.")


def selected(answer: Callable[[bytes], bytes], offered: Sequence[int]) -> int | None:
    """Return which of these groups a server asks a share of; None if it refuses."""
    return _read_retry(answer(_hello(offered)))


def _hello(groups: Sequence[int]) -> bytes:
    extensions = b"".join(
        [
            _extension(_SUPPORTED_GROUPS, _vector(2, _numbers(groups))),
            _extension(
                _SIGNATURE_ALGORITHMS,
                _vector(2, _numbers([*_SIGNATURES, *_SIGNATURES_ML_DSA])),
            ),
            _extension(_SUPPORTED_VERSIONS, _vector(1, _numbers([_TLS_1_3]))),
            _extension(_KEY_SHARE, _vector(2, b"")),
        ]
    )
    body = b"".join(
        [
            _numbers([_TLS_1_2]),
            os.urandom(32),
            _vector(1, b""),
            _vector(2, _numbers(_CIPHERS)),
            _vector(1, b"\0"),
            _vector(2, extensions),
        ]
    )
    return b"\x16\x03\x01" + _vector(2, b"\x01" + _vector(3, body))


def _read_retry(data: bytes) -> int | None:
    """Return the group that a HelloRetryRequest names; None for anything else."""
    if data[:1] != b"\x16" or data[5:6] != b"\x02" or data[11:43] != _RETRY_RANDOM:
        return None
    message = data[5 : 5 + int.from_bytes(data[3:5], "big")]
    at = 38 + 1 + message[38] + 2 + 1 + 2  # session id, cipher, compression, length
    while at + 4 <= len(message):
        kind = int.from_bytes(message[at : at + 2], "big")
        length = int.from_bytes(message[at + 2 : at + 4], "big")
        if kind == _KEY_SHARE:
            return int.from_bytes(message[at + 4 : at + 6], "big")
        at += 4 + length
    return None


def _numbers(values: Sequence[int]) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def _vector(length: int, data: bytes) -> bytes:
    return len(data).to_bytes(length, "big") + data


def _extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + _vector(2, data)


ALERTS: Final = {
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    116: "certificate_required",
    120: "no_application_protocol",
}
"""Alerts that end a handshake, by number (RFC 8446, section 6)."""

_OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    Outcome of a handshake.

    Attributes:
        name: ``ok``, ``challenge``, ``timeout``, ``disconnected``, or ``refused_`` or
            ``rejected_`` and the name of the alert that the server or the client sent.
        group: Key exchange group, or ``none``.
    """

    name: str
    group: str = "none"

    @property
    def is_refusal(self) -> bool:
        """Whether the server ended it."""
        return self.name.startswith("refused_")

    @classmethod
    def by_error(cls, error: OSError) -> Outcome:
        """Return the outcome of a handshake that ended by an error."""
        is_late = isinstance(error, ConnectionAbortedError | TimeoutError)
        return cls("timeout" if is_late else "disconnected")

    @classmethod
    def by_alert(cls, number: int, *, is_ours: bool) -> Outcome:
        """Return the outcome of a handshake that ended by an alert."""
        who = "refused" if is_ours else "rejected"
        return cls(f"{who}_{ALERTS.get(number, _OTHER)}")


@dataclass(slots=True)
class Attempt:
    """
    Handshake in progress, with its outcome.

    Attributes:
        outcome: Its outcome, or None until OpenSSL has finished it.
        on_failure: Called after a failure; the alert is already on its way.
    """

    outcome: Outcome | None = None
    on_failure: Callable[[], None] = lambda: None


def group_label(name: str | None) -> str:
    """Return a group as metrics name it: one of a known few."""
    if not name:
        return "none"
    return next((known for known in GROUPS if known.lower() == name.lower()), _OTHER)


@runtime_checkable
class SecureChannel(Protocol):
    """
    Facts of a connection after its handshake.

    Attributes:
        rules: Client rules that accepted the client.
    """

    rules: ClientRules | None

    def group(self) -> str:
        """Return the group of the key exchange, such as ``X25519MLKEM768``."""
        ...

    def peer_certificate(self) -> x509.Certificate | None:
        """Return the client's certificate; None if it has shown none."""
        ...

    def verified_chain(self) -> list[x509.Certificate]:
        """
        Return the client's chain as it was verified, its own certificate first.

        The last is one of the authorities; empty if the client has shown none.
        """
        ...


def channel_of(transport: asyncio.BaseTransport | None) -> SecureChannel | None:
    """Return the channel of a transport; None without a handshake."""
    found = transport.get_extra_info("ssl_object") if transport is not None else None
    return found if isinstance(found, SecureChannel) else None
