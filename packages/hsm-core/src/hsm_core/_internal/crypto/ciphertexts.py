# SPDX-License-Identifier: MIT
"""
Envelopes of ciphertexts, which name key and version, and messages sealed to a KEM key.

::

    magic  "FHSM"          4 bytes
    format 1               1 byte
    kind                   1 byte    ``envelope_kind`` of the algorithm table
    key id                16 bytes   UUID
    version                4 bytes   big-endian
    parameters             2 bytes   RSAES-OAEP: hash, MGF1 hash; others: zeros
    body                             AEAD: nonce (12) ‖ ciphertext ‖ tag (16)
                                     RSAES-OAEP: ciphertext, as long as the modulus
                                     KEM: encapsulation ‖ ciphertext ‖ tag (16)

Everything before the body is the header. An AEAD authenticates
``length_prefixed(header, aad)`` as its additional data; RSAES-OAEP takes the same
bytes as its label. Each message to a KEM key has a key of its own::

    (secret, encapsulation) = Encaps(public key)
    key (32) ‖ nonce (12)   = HKDF-SHA-256(secret, no salt, info)
    body                    = encapsulation ‖ AES-256-GCM(key, nonce, plaintext, bound)

*info* is ``length_prefixed(label, algorithm, header, encapsulation)``, and *bound* the
additional data as above. The nonce never meets a second message under its key, because
both are derived from one fresh encapsulation.

Standard:
    FIPS 203 or the composite's draft; RFC 5869; SP 800-38D. The steps for a KEM are
    those of RFC 9180 in base mode; labels and encoding are our own.
"""

from __future__ import annotations

import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from hsm_core._internal.lib.encoding import length_prefixed
from hsm_core.algorithms import ALGORITHMS, Algorithm, HashAlgorithm, spec
from hsm_core.algorithms.specs import KEM_ENVELOPE, RSAES_OAEP
from hsm_core.errors import (
    DecryptionError,
    InvalidInputError,
    UnsupportedOperationError,
)
from hsm_core.model import KeyId
from hsm_core.protocols import KeyHandle

if TYPE_CHECKING:
    from hsm_core._internal.crypto.registry import CryptoRegistry

_MAGIC: Final = b"FHSM\x01"
HEADER_BYTES: Final = 28
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_KINDS: Final = {row.envelope_kind for row in ALGORITHMS.values()} - {0}
_NO_PARAMETERS: Final = bytes(2)
_HASHES: Final = (
    HashAlgorithm.SHA_256,
    HashAlgorithm.SHA_384,
    HashAlgorithm.SHA_512,
)


def kind_of(algorithm: Algorithm) -> int:
    """
    Return the kind of envelope that keys of an algorithm make.

    Raises:
        UnsupportedOperationError: They make none.
    """
    if kind := spec(algorithm).envelope_kind:
        return kind
    raise UnsupportedOperationError(
        f"{algorithm} keys can't encrypt.", algorithm=algorithm.value
    )


class Header(msgspec.Struct, frozen=True):
    """The authenticated start of an envelope; the hashes are for RSAES-OAEP."""

    kind: int
    key_id: KeyId
    version: int
    hash: HashAlgorithm = HashAlgorithm.SHA_256
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256

    def encode(self) -> bytes:
        """Return the header's 28 bytes."""
        parameters = (
            bytes([_HASHES.index(self.hash) + 1, _HASHES.index(self.mgf_hash) + 1])
            if self.kind == RSAES_OAEP
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


def parse(envelope: bytes) -> tuple[Header, memoryview]:
    """
    Return header and body of an envelope; the body is a view of it.

    Raises:
        DecryptionError: It is not an envelope of this format.
    """
    start, body = envelope[:HEADER_BYTES], memoryview(envelope)[HEADER_BYTES:]
    if len(start) < HEADER_BYTES or not start.startswith(_MAGIC):
        raise DecryptionError
    try:
        kind = start[5]
        key_id = KeyId(str(uuid.UUID(bytes=start[6:22])))
        version = int.from_bytes(start[22:26], "big")
        if kind == RSAES_OAEP:
            first, second = (_hash_of(code) for code in start[26:28])
            header = Header(kind, key_id, version, first, second)
        else:
            header = Header(kind, key_id, version)
    except ValueError:
        raise DecryptionError from None
    if kind not in _KINDS or header.encode() != start:
        raise DecryptionError
    return header, body


def commitment(algorithm: Algorithm, envelope: bytes) -> bytes:
    """
    Return the parts of an envelope that stand for all of it in the audit log.

    They are everything before the ciphertext, the tag, and the envelope's length as 8
    bytes: with the key, they fix plaintext and additional data. Of RSAES-OAEP, which
    has no tag, it is the whole envelope.

    Args:
        algorithm: The key's.

        envelope: One that was made or opened with it.
    """
    row = spec(algorithm)
    if row.envelope_kind == RSAES_OAEP:
        return envelope
    start = row.ciphertext_bytes if row.is_kem else NONCE_BYTES
    return commitment_around(HEADER_BYTES + start, envelope)


def commitment_around(start: int, envelope: bytes) -> bytes:
    """Return the `commitment` of an envelope whose ciphertext begins at *start*."""
    size = len(envelope).to_bytes(8, "big")
    return envelope[:start] + envelope[-TAG_BYTES:] + size


def _hash_of(code: int) -> HashAlgorithm:
    if not 1 <= code <= len(_HASHES):
        raise ValueError
    return _HASHES[code - 1]


_LABEL: Final = b"FerroHSM KEM envelope 1"
_KEY_BYTES: Final = 32
_LAST_VERSION: Final = 0xFFFF_FFFF


def seal_to(
    crypto: CryptoRegistry,
    public: KeyHandle,
    key_id: str,
    version: int,
    plaintext: bytes,
    aad: bytes = b"",
) -> bytes:
    """
    Encrypt a message to a public key; no HSM is needed.

    Args:
        crypto: Who loads HKDF-SHA-256 and AES-256-GCM.

        public: Either half of a KEM key.

        key_id: The key's id, which the envelope names.

        version: The key's version, which the envelope names.

        plaintext: Any length that AES-256-GCM takes.

        aad: Authenticated, not encrypted.

    Returns:
        An envelope of kind `KEM_ENVELOPE`.

    Raises:
        InvalidInputError: *key_id* is no UUID in canonical form, *version* is beyond
            its limits, or the public key is one that no secret comes of.
        InputSizeError: *plaintext* or *aad* is too long.
        UnsupportedOperationError: The key is not of a KEM.
    """
    header = _header(key_id, version)
    secret, encapsulation = public.encapsulate()
    key, nonce = _message_key(crypto, public.algorithm, secret, header, encapsulation)
    cipher = crypto.load(Algorithm.AES_256_GCM, key)
    start = header.encode() + encapsulation
    return cipher.seal(nonce, plaintext, header.bind(aad), start)


def open_with(
    crypto: CryptoRegistry, private: KeyHandle, envelope: bytes, aad: bytes = b""
) -> bytes:
    """
    Decrypt what `seal_to` returned.

    Which key and version to open it with says `ciphertexts.parse`; a changed name
    makes another message key, and so fails here.

    Raises:
        DecryptionError: Anything is wrong.
        UnsupportedOperationError: The key is not the private half of a KEM key.
    """
    header, body = parse(envelope)
    size = spec(private.algorithm).ciphertext_bytes
    encapsulation, sealed = bytes(body[:size]), body[size:]
    if header.kind != KEM_ENVELOPE or len(encapsulation) != size:
        raise DecryptionError
    secret = private.decapsulate(encapsulation)
    key, nonce = _message_key(crypto, private.algorithm, secret, header, encapsulation)
    cipher = crypto.load(Algorithm.AES_256_GCM, key)
    return cipher.open(nonce, sealed, header.bind(aad))


def _header(key_id: str, version: int) -> Header:
    try:
        canonical = str(uuid.UUID(key_id)) == key_id
    except ValueError:
        canonical = False
    if not canonical:
        raise InvalidInputError(
            "key_id must be a UUID in lower case, with hyphens.", field="key_id"
        )
    if not 1 <= version <= _LAST_VERSION:
        raise InvalidInputError(
            f"version must be between 1 and {_LAST_VERSION}.", field="version"
        )
    return Header(KEM_ENVELOPE, KeyId(key_id), version)


def _message_key(
    crypto: CryptoRegistry,
    algorithm: Algorithm,
    secret: bytes,
    header: Header,
    encapsulation: bytes,
) -> tuple[bytes, bytes]:
    """Return key and nonce of the one message that belongs to this encapsulation."""
    info = length_prefixed(
        _LABEL, algorithm.value.encode(), header.encode(), encapsulation
    )
    derivation = crypto.load(Algorithm.HKDF_SHA_256, secret)
    output = derivation.derive(b"", info, _KEY_BYTES + NONCE_BYTES)
    return output[:_KEY_BYTES], output[_KEY_BYTES:]
