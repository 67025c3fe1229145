# SPDX-License-Identifier: MIT
"""
Whole messages encrypted to a KEM key; with a composite, hybrid encryption.

Every message has a key of its own::

    (secret, encapsulation) = Encaps(public key)
    key (32) ‖ nonce (12)   = HKDF-SHA-256(secret, no salt, info)
    body                    = encapsulation ‖ AES-256-GCM(key, nonce, plaintext, bound)

*info* is ``length_prefixed(label, algorithm, header, encapsulation)``, *bound* the
header with the caller's additional data as for every AEAD. The nonce never meets a
second message under its key, because both come from one fresh encapsulation.

Standard:
    FIPS 203 or the composite's draft; RFC 5869; SP 800-38D. The steps are those of
    RFC 9180 in base mode; labels and encoding are our own.
"""

from __future__ import annotations

import uuid
from typing import Final

from hsm_core._internal.crypto.ciphertexts import (
    NONCE_BYTES,
    CipherKind,
    Header,
    parse,
)
from hsm_core._internal.crypto.loader import KeyLoader
from hsm_core._internal.lib.encoding import length_prefixed
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import DecryptionError, InvalidInputError
from hsm_core.model import KeyId
from hsm_core.protocols import KeyHandle

_LABEL: Final = b"FerroHSM KEM envelope 1"
_KEY_BYTES: Final = 32
_LAST_VERSION: Final = 0xFFFF_FFFF


def seal_to(
    crypto: KeyLoader,
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
        An envelope of kind `CipherKind.KEM`.

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
    sealed = cipher.seal(nonce, plaintext, header.bind(aad))
    return header.encode() + encapsulation + sealed


def open_with(
    crypto: KeyLoader, private: KeyHandle, envelope: bytes, aad: bytes = b""
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
    encapsulation, sealed = body[:size], body[size:]
    if header.kind is not CipherKind.KEM or len(encapsulation) != size:
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
    return Header(CipherKind.KEM, KeyId(key_id), version)


def _message_key(
    crypto: KeyLoader,
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
