# SPDX-License-Identifier: MIT
"""
The envelope that ciphertexts travel in: it names key and version, authenticated.

::

    magic  "FHSM"          4 bytes
    format 1               1 byte
    kind                   1 byte    1 AES-256-GCM, 2 RSAES-OAEP
    key id                16 bytes   UUID
    version                4 bytes   big-endian
    parameters             2 bytes   kind 1: zeros; kind 2: hash, MGF1 hash
    body                             kind 1: nonce (12) ‖ ciphertext ‖ tag (16)
                                     kind 2: ciphertext, as long as the modulus

Everything before the body is the header. AES-256-GCM authenticates
``length_prefixed(header, aad)`` as its additional data; RSAES-OAEP takes the same
bytes as its label.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hsm_core._internal.encoding import length_prefixed
from hsm_core.algorithms import HashAlgorithm
from hsm_core.errors import DecryptionError
from hsm_core.model import KeyId

__all__ = ["HEADER_BYTES", "NONCE_BYTES", "CipherKind", "Header", "parse"]

_MAGIC: Final = b"FHSM\x01"
HEADER_BYTES: Final = 28
NONCE_BYTES: Final = 12
_HASHES: Final = (
    HashAlgorithm.SHA_256,
    HashAlgorithm.SHA_384,
    HashAlgorithm.SHA_512,
)


class CipherKind(IntEnum):
    """What the body is."""

    AES_256_GCM = 1
    RSAES_OAEP = 2


@dataclass(frozen=True, slots=True)
class Header:
    """The authenticated start of an envelope; the hashes are for RSAES-OAEP."""

    kind: CipherKind
    key_id: KeyId
    version: int
    hash: HashAlgorithm = HashAlgorithm.SHA_256
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256

    def encode(self) -> bytes:
        """Return the header's 28 bytes."""
        parameters = (
            bytes(2)
            if self.kind is CipherKind.AES_256_GCM
            else bytes([_HASHES.index(self.hash) + 1, _HASHES.index(self.mgf_hash) + 1])
        )
        return b"".join(
            (
                _MAGIC,
                bytes([self.kind]),
                uuid.UUID(self.key_id).bytes,
                self.version.to_bytes(4, "big"),
                parameters,
            )
        )

    def bind(self, aad: bytes) -> bytes:
        """Return what the cipher authenticates besides the plaintext."""
        return length_prefixed(self.encode(), aad)


def parse(envelope: bytes) -> tuple[Header, bytes]:
    """
    Return header and body of an envelope.

    Raises:
        DecryptionError: It is not an envelope of this format.
    """
    start, body = envelope[:HEADER_BYTES], envelope[HEADER_BYTES:]
    if len(start) < HEADER_BYTES or not start.startswith(_MAGIC):
        raise DecryptionError
    try:
        kind = CipherKind(start[5])
        key_id = KeyId(str(uuid.UUID(bytes=start[6:22])))
        version = int.from_bytes(start[22:26], "big")
        if kind is CipherKind.AES_256_GCM:
            header = Header(kind, key_id, version)
        else:
            first, second = (_hash_of(code) for code in start[26:28])
            header = Header(kind, key_id, version, first, second)
    except ValueError:
        raise DecryptionError from None
    if header.encode() != start:
        raise DecryptionError
    return header, body


def _hash_of(code: int) -> HashAlgorithm:
    if not 1 <= code <= len(_HASHES):
        raise ValueError
    return _HASHES[code - 1]
