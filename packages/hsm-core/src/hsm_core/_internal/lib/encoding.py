# SPDX-License-Identifier: MIT
"""Canonical encoding of several values as one unambiguous byte string."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable


def length_prefixed(*parts: bytes) -> bytes:
    """
    Join byte strings so that no two lists give the same result.

    Each part is preceded by its length in bytes as 8 bytes, big-endian.
    """
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def hkdf_sha256(key: bytes, *, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """
    Derive a key with HKDF-SHA-256 (RFC 5869).

    Args:
        key: Input keying material.

        salt: Any length; empty stands for 32 zero bytes.

        info: Domain label, with context where there is one.

        length: 1 to 8160 bytes.
    """
    pseudo_random_key = hmac.digest(salt or bytes(32), key, "sha256")
    block, output, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(
            pseudo_random_key, block + info + bytes([counter]), "sha256"
        )
        output += block
        counter += 1
    return output[:length]


def mac_function(key: bytes, domain: bytes = b"") -> Callable[[bytes], bytes]:
    """
    Return HMAC-SHA-256 under one key (FIPS 198-1), with the key schedule done once.

    The MAC covers *domain* followed by the data.

    Copying two pre-keyed hash objects costs half of ``hmac.digest``.
    """
    padded = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + domain)
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def mac(data: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(data)
        second.update(first.digest())
        return second.digest()

    return mac
