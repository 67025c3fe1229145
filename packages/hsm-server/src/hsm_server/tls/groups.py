# SPDX-License-Identifier: MIT
"""
Key exchange groups, and a check that OpenSSL applies them.

OpenSSL silently ignores unknown group names and unread configuration. The check sends a
ClientHello with one group and no key share: OpenSSL must answer with a
HelloRetryRequest for that group, or with an alert.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Final, Protocol

from hsm_server.config.exit_codes import ListenError

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


class Handshake(Protocol):
    """Server side of a handshake in memory."""

    def __call__(self, hello: bytes, /) -> bytes:
        """Return the response to the first bytes of a client, including alerts."""
        ...


def check_groups(answer: Handshake) -> None:
    """
    Check that exactly these groups are served, and hybrid ones preferred.

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


def selected(answer: Handshake, offered: Sequence[int]) -> int | None:
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
