# SPDX-License-Identifier: MIT
"""
The envelope that ciphertexts travel in: it names key and version, authenticated.

::

    magic  "FHSM"          4 bytes
    format 1               1 byte
    kind                   1 byte    as `CipherKind`
    key id                16 bytes   UUID
    version                4 bytes   big-endian
    parameters             2 bytes   RSAES-OAEP: hash, MGF1 hash; others: zeros
    body                             AEAD: nonce (12) ‖ ciphertext ‖ tag (16)
                                     RSAES-OAEP: ciphertext, as long as the modulus
                                     KEM: encapsulation ‖ ciphertext ‖ tag (16)

Everything before the body is the header. An AEAD authenticates
``length_prefixed(header, aad)`` as its additional data; RSAES-OAEP takes the same
bytes as its label. A KEM's body is described in
`hsm_core._internal.crypto.kem_sealing`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from typing import Final

from hsm_core._internal.lib.encoding import length_prefixed
from hsm_core.algorithms import Algorithm, Family, HashAlgorithm, spec
from hsm_core.errors import DecryptionError, UnsupportedOperationError
from hsm_core.model import KeyId

_MAGIC: Final = b"FHSM\x01"
HEADER_BYTES: Final = 28
NONCE_BYTES: Final = 12
_NO_PARAMETERS: Final = bytes(2)
_HASHES: Final = (
    HashAlgorithm.SHA_256,
    HashAlgorithm.SHA_384,
    HashAlgorithm.SHA_512,
)


class CipherKind(IntEnum):
    """What the body is. An AEAD's kind has the name of its algorithm."""

    AES_256_GCM = 1
    RSAES_OAEP = 2
    KEM = 3
    AES_128_GCM = 4
    CHACHA20_POLY1305 = 5


@cache
def kind_of(algorithm: Algorithm) -> CipherKind:
    """
    Return the kind of envelope that keys of an algorithm make.

    Raises:
        UnsupportedOperationError: They make none.
    """
    row = spec(algorithm)
    if row.family is Family.AEAD:
        return CipherKind[algorithm.name]
    if row.family is Family.RSA:
        return CipherKind.RSAES_OAEP
    if row.is_kem:
        return CipherKind.KEM
    raise UnsupportedOperationError(
        f"{algorithm} keys can't encrypt.", algorithm=algorithm.value
    )


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
            bytes([_HASHES.index(self.hash) + 1, _HASHES.index(self.mgf_hash) + 1])
            if self.kind is CipherKind.RSAES_OAEP
            else _NO_PARAMETERS
        )
        return b"".join(
            (
                _MAGIC,
                bytes([self.kind]),
                _id_bytes(self.key_id),
                self.version.to_bytes(4, "big"),
                parameters,
            )
        )

    def bind(self, aad: bytes) -> bytes:
        """Return what the cipher authenticates besides the plaintext."""
        return length_prefixed(self.encode(), aad)


@lru_cache(maxsize=1024)
def _id_bytes(key_id: KeyId) -> bytes:
    """Return a key's id as 16 bytes; each of a key's ciphertexts has them twice."""
    return uuid.UUID(key_id).bytes


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
        if kind is CipherKind.RSAES_OAEP:
            first, second = (_hash_of(code) for code in start[26:28])
            header = Header(kind, key_id, version, first, second)
        else:
            header = Header(kind, key_id, version)
    except ValueError:
        raise DecryptionError from None
    if header.encode() != start:
        raise DecryptionError
    return header, body


def _hash_of(code: int) -> HashAlgorithm:
    if not 1 <= code <= len(_HASHES):
        raise ValueError
    return _HASHES[code - 1]
