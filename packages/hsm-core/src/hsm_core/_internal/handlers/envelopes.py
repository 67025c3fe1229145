# SPDX-License-Identifier: MIT
"""Envelopes as handlers make and open them, whatever the key's algorithm."""

from __future__ import annotations

from dataclasses import dataclass, field

from hsm_core._internal.crypto.ciphertexts import (
    NONCE_BYTES,
    CipherKind,
    Header,
    kind_of,
)
from hsm_core._internal.crypto.ciphertexts import parse as parse_envelope
from hsm_core._internal.crypto.kem_sealing import open_with, seal_to
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.versions import require_version
from hsm_core.algorithms import Algorithm, HashAlgorithm
from hsm_core.errors import DecryptionError, KeyNotFoundError
from hsm_core.protocols import OAEPParameters


@dataclass(frozen=True, slots=True)
class Opened:
    """A plaintext, and the header of the envelope that held it."""

    header: Header
    plaintext: bytes = field(repr=False)


def seal_envelope(
    services: HandlerDependencies,
    key: KeyDocument,
    plaintext: bytes,
    aad: bytes,
    *,
    hash: HashAlgorithm = HashAlgorithm.SHA_256,
    mgf_hash: HashAlgorithm = HashAlgorithm.SHA_256,
) -> bytes:
    """
    Encrypt with the current version; nonces are ours, never the caller's.

    Args:
        services: Dependencies of the handlers.

        key: A key of an AEAD, RSA or KEM.

        plaintext: What to encrypt.

        aad: Authenticated, not encrypted.

        hash: RSAES-OAEP only.

        mgf_hash: RSAES-OAEP only.

    Raises:
        InputSizeError: The plaintext is too long for RSAES-OAEP.
    """
    version, materials = key.current_version, services.inventory.materials
    kind = kind_of(Algorithm(key.algorithm))
    if kind is CipherKind.KEM:
        public = materials.public_handle(key, version)
        return seal_to(
            services.crypto, public, key.key_id, version.version, plaintext, aad
        )
    if kind is CipherKind.RSAES_OAEP:
        header = Header(kind, key.key_id, version.version, hash, mgf_hash)
        parameters = _oaep(header, aad)
        handle = materials.public_handle(key, version)
        return header.encode() + handle.encrypt(plaintext, parameters)
    header = Header(kind, key.key_id, version.version)
    nonce = services.entropy.random_bytes(NONCE_BYTES)
    sealed = materials.handle(key, version).seal(nonce, plaintext, header.bind(aad))
    return header.encode() + nonce + sealed


def open_envelope(
    services: HandlerDependencies,
    key: KeyDocument,
    kind: str,
    envelope: bytes,
    aad: bytes,
) -> Opened:
    """
    Decrypt with the version that the envelope names.

    Args:
        services: Dependencies of the handlers.

        key: A key of an AEAD, RSA or KEM.

        kind: The operation, which the version's state must permit.

        envelope: As `seal_envelope` returned it.

        aad: As it was given there.

    Raises:
        DecryptionError: Anything is wrong with the envelope; it is not said what.
        KeyStateError: The version's state does not permit the operation.
    """
    header, body = parse_envelope(envelope)
    algorithm = Algorithm(key.algorithm)
    if header.key_id != key.key_id or header.kind is not kind_of(algorithm):
        raise DecryptionError
    try:
        version = require_version(key, header.version, kind)
    except KeyNotFoundError:
        raise DecryptionError from None
    handle = services.inventory.materials.handle(key, version)
    if header.kind is CipherKind.KEM:
        return Opened(header, open_with(services.crypto, handle, envelope, aad))
    if header.kind is CipherKind.RSAES_OAEP:
        return Opened(header, handle.decrypt(body, _oaep(header, aad)))
    nonce, sealed = body[:NONCE_BYTES], body[NONCE_BYTES:]
    return Opened(header, handle.open(nonce, sealed, header.bind(aad)))


def _oaep(header: Header, aad: bytes) -> OAEPParameters:
    return OAEPParameters(
        hash=header.hash, mgf_hash=header.mgf_hash, label=header.bind(aad)
    )
