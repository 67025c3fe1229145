# SPDX-License-Identifier: MIT
"""Encapsulate, Decapsulate, Seal, Open."""

from __future__ import annotations

from dataclasses import dataclass, field

from hsm_core import operations as ops
from hsm_core._internal.crypto.ciphertexts import (
    NONCE_BYTES,
    Header,
    kind_of,
    open_with,
    seal_to,
)
from hsm_core._internal.crypto.ciphertexts import parse as parse_envelope
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    HandlerDependencies,
    ProtectingHandler,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import Algorithm, AlgorithmSpec, HashAlgorithm
from hsm_core.algorithms.specs import KEM_ENVELOPE, RSAES_OAEP
from hsm_core.errors import (
    DecryptionError,
    InputSizeError,
    KeyNotFoundError,
    UnsupportedOperationError,
)
from hsm_core.protocols import OAEPParameters
from hsm_core.settings import CIPHERTEXT_OVERHEAD_BYTES


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
    if kind == KEM_ENVELOPE:
        public = materials.public_handle(key, version)
        return seal_to(
            services.crypto, public, key.key_id, version.version, plaintext, aad
        )
    if kind == RSAES_OAEP:
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
    if header.key_id != key.key_id or header.kind != kind_of(algorithm):
        raise DecryptionError
    try:
        version = require_version(key, header.version, kind)
    except KeyNotFoundError:
        raise DecryptionError from None
    handle = services.inventory.materials.handle(key, version)
    if header.kind == KEM_ENVELOPE:
        return Opened(header, open_with(services.crypto, handle, envelope, aad))
    if header.kind == RSAES_OAEP:
        return Opened(header, handle.decrypt(body, _oaep(header, aad)))
    nonce, sealed = body[:NONCE_BYTES], body[NONCE_BYTES:]
    return Opened(header, handle.open(nonce, sealed, header.bind(aad)))


def _oaep(header: Header, aad: bytes) -> OAEPParameters:
    return OAEPParameters(
        hash=header.hash, mgf_hash=header.mgf_hash, label=header.bind(aad)
    )


@handles(ops.Encapsulate)
class EncapsulateHandler(Handler[ops.Encapsulate, ops.Encapsulation]):
    """Make a shared secret for the current version."""

    def prepare(self, context: RequestContext[ops.Encapsulate], /) -> None:
        """Check usage and state."""
        check_usage(context.key, ops.Encapsulate.usage)
        require_version(context.key, None, "Encapsulate")
        self._services.crypto.require(context.spec.algorithm)

    def perform(
        self, context: RequestContext[ops.Encapsulate], /
    ) -> Answer[ops.Encapsulation]:
        """Encapsulate to the public key."""
        key, version = context.key, context.key.current_version
        handle = self._services.inventory.materials.public_handle(key, version)
        secret, ciphertext = handle.encapsulate()
        return Answer(
            ops.Encapsulation(
                key_id=key.key_id,
                version=version.version,
                algorithm=Algorithm(key.algorithm),
                ciphertext=ciphertext,
                shared_secret=secret,
            ),
            version.version,
        )


@handles(ops.Decapsulate)
class DecapsulateHandler(Handler[ops.Decapsulate, ops.SharedSecret]):
    """Find the shared secret of an encapsulation."""

    def prepare(self, context: RequestContext[ops.Decapsulate], /) -> None:
        """Check usage, state and length."""
        operation, size = context.operation, context.spec.ciphertext_bytes
        check_usage(context.key, ops.Decapsulate.usage)
        require_version(context.key, operation.version, "Decapsulate")
        actual = len(operation.ciphertext)
        if actual != size:
            raise InputSizeError(
                "ciphertext", actual=actual, minimum=size, maximum=size
            )
        self._services.crypto.require(context.spec.algorithm)

    def perform(
        self, context: RequestContext[ops.Decapsulate], /
    ) -> Answer[ops.SharedSecret]:
        """Decapsulate; a changed encapsulation gives another secret."""
        key, operation = context.key, context.operation
        version = require_version(key, operation.version, "Decapsulate")
        handle = self._services.inventory.materials.handle(key, version)
        return Answer(
            ops.SharedSecret(
                key_id=key.key_id,
                version=version.version,
                shared_secret=handle.decapsulate(operation.ciphertext),
            ),
            version.version,
        )


@handles(ops.Seal)
class SealHandler(ProtectingHandler[ops.Seal, ops.Ciphertext]):
    """Encrypt a message to the current version."""

    def prepare(self, context: RequestContext[ops.Seal], /) -> None:
        """Check sizes, usage and state."""
        operation, limits = context.operation, self._services.settings.limits
        self._check_size("plaintext", operation.plaintext, limits.payload_bytes)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(context.key, ops.Seal.usage)
        require_version(context.key, None, "Seal")
        _check_kem(operation, context.spec)
        self._services.crypto.require(context.spec.algorithm)

    def protected_bytes(self, operation: ops.Seal, /) -> int:
        """Return the length of the data."""
        return len(operation.plaintext)

    def perform(self, context: RequestContext[ops.Seal], /) -> Answer[ops.Ciphertext]:
        """Encapsulate, derive, encrypt."""
        key, operation = context.key, context.operation
        sealed = seal_envelope(self._services, key, operation.plaintext, operation.aad)
        result = ops.Ciphertext(
            key_id=key.key_id, version=key.current, ciphertext=sealed
        )
        return Answer(result, key.current)


@handles(ops.Open)
class OpenHandler(Handler[ops.Open, ops.Plaintext]):
    """Decrypt what was sealed, with the version that it names."""

    def prepare(self, context: RequestContext[ops.Open], /) -> None:
        """Check sizes and usage."""
        operation, limits = context.operation, self._services.settings.limits
        longest = limits.payload_bytes + CIPHERTEXT_OVERHEAD_BYTES
        self._check_size("ciphertext", operation.ciphertext, longest)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(context.key, ops.Open.usage)
        _check_kem(operation, context.spec)
        self._services.crypto.require(context.spec.algorithm)

    def perform(self, context: RequestContext[ops.Open], /) -> Answer[ops.Plaintext]:
        """Decapsulate, derive, decrypt; whatever is wrong has one answer."""
        key, operation = context.key, context.operation
        opened = open_envelope(
            self._services, key, "Open", operation.ciphertext, operation.aad
        )
        version = opened.header.version
        return Answer(
            ops.Plaintext(
                key_id=key.key_id, version=version, plaintext=opened.plaintext
            ),
            version,
        )


def _check_kem(operation: ops.Seal | ops.Open, row: AlgorithmSpec) -> None:
    if row.is_kem:
        return
    kind = type(operation).__name__
    other = "Encrypt" if isinstance(operation, ops.Seal) else "Decrypt"
    raise UnsupportedOperationError(
        f"key_id: {row.algorithm} keys don't support {kind}; use {other}.",
        algorithm=row.algorithm.value,
        field="key_id",
    )
