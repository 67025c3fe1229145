# SPDX-License-Identifier: MIT
"""Keys, MACs, hashes and commitments of a log."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

NOTHING: Final = "0" * 64
"""Leaf hash before the first entry."""


class BadLogError(Exception):
    """
    What is wrong with a log.

    Attributes:
        seq: The first bad entry.
        reason: One of the reasons of the page.
    """

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(f"{reason} at {seq}")
        self.seq = seq
        self.reason = reason


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data


def derived(hmac_key: bytes, log_id: str, label: str) -> bytes:
    """Return a key of a log."""
    info = _counted(label.encode()) + _counted(bytes(8))
    return _hkdf(hmac_key, bytes.fromhex(log_id), info)


def key_check(hmac_key: bytes) -> bytes:
    """Return what tells a wrong key from a damaged log."""
    return _hkdf(hmac_key, b"", _counted(b"FerroHSM audit key check 1"))


def _hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def mac_of(record_key: bytes, covered: bytes) -> str:
    """Return the MAC over all bytes of an entry before it."""
    text = b"FerroHSM audit record 2\x00" + covered
    return hmac.digest(record_key, text, "sha256").hex()


def leaf_of(entry: bytes) -> bytes:
    """Return the leaf hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def part_hash(label: str, salt: str, written: bytes) -> bytes:
    """Return the hash of one part of a facts line."""
    text = _counted(label.encode()) + bytes.fromhex(salt) + written
    return hashlib.sha256(b"\x02" + text).digest()


def facts_hash(parts: list[bytes]) -> str:
    """Return the hash over all parts."""
    return hashlib.sha256(b"\x03" + b"".join(parts)).hexdigest()


def bind_of(bind_key: bytes, seq: int, what: bytes) -> str:
    """Return the commitment to what was answered."""
    salt = aes256_block(bind_key, seq.to_bytes(16, "big"))
    return hashlib.sha256(b"\x04" + salt + what).hexdigest()


def tree_roots(leaves: list[bytes]) -> tuple[str, ...]:
    """Return the roots of the largest complete subtrees, the largest first."""
    found: list[str] = []
    while leaves:
        size = 1 << (len(leaves).bit_length() - 1)
        found.append(_root(leaves[:size]).hex())
        leaves = leaves[size:]
    return tuple(found)


def _root(leaves: list[bytes]) -> bytes:
    while len(leaves) > 1:
        pairs = zip(leaves[::2], leaves[1::2], strict=True)
        leaves = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in pairs]
    return leaves[0]


# AES-256 of one block (FIPS 197), which the standard library has not


def _times(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _sbox() -> list[int]:
    box = [0x63] * 256
    for value in range(1, 256):
        inverse = next(x for x in range(1, 256) if _times(value, x) == 1)
        mixed = inverse
        for turn in range(1, 5):
            mixed ^= (inverse << turn | inverse >> (8 - turn)) & 0xFF
        box[value] = mixed ^ 0x63
    return box


_BOX: Final = _sbox()


def aes256_block(key: bytes, block: bytes) -> bytes:
    """Return one block of 16 bytes encrypted under a key of 32."""
    words = [list(key[at : at + 4]) for at in range(0, 32, 4)]
    constant = 1
    for at in range(8, 60):
        word = list(words[-1])
        if at % 8 == 0:
            word = [_BOX[byte] for byte in word[1:] + word[:1]]
            word[0] ^= constant
            constant = _times(constant, 2)
        elif at % 8 == 4:
            word = [_BOX[byte] for byte in word]
        words.append([a ^ b for a, b in zip(words[at - 8], word, strict=True)])
    flat = [byte for word in words for byte in word]
    rounds = [flat[at : at + 16] for at in range(0, 240, 16)]
    state = [a ^ b for a, b in zip(block, rounds[0], strict=True)]
    for number in range(1, 15):
        state = [_BOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16)]
        if number < 14:
            state = [
                _times(state[at], 2)
                ^ _times(state[at // 4 * 4 + (at + 1) % 4], 3)
                ^ state[at // 4 * 4 + (at + 2) % 4]
                ^ state[at // 4 * 4 + (at + 3) % 4]
                for at in range(16)
            ]
        state = [a ^ b for a, b in zip(state, rounds[number], strict=True)]
    return bytes(state)
