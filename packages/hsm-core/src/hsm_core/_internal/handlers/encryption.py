# SPDX-License-Identifier: MIT
"""Encryption, data keys and key encapsulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.ciphertexts import (
    NONCE_BYTES,
    Header,
    commitment,
    kind_of,
    open_with,
    seal_to,
)
from hsm_core._internal.crypto.ciphertexts import parse as parse_envelope
from hsm_core._internal.crypto.parameters import check_encapsulation
from hsm_core._internal.handlers.base import (
    Answer,
    HandlerDependencies,
    UseHandler,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    CiphertextEncoding,
    Family,
    HashAlgorithm,
    KeyUsage,
    spec,
)
from hsm_core.algorithms.specs import KEM_ENVELOPE, RSAES_OAEP
from hsm_core.errors import (
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    UnsupportedOperationError,
)
from hsm_core.protocols import OAEPParameters

EncryptOrDecrypt = TypeVar("EncryptOrDecrypt", ops.Encrypt, ops.Decrypt)


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
    start, bound = header.encode() + nonce, header.bind(aad)
    return materials.handle(key, version).seal(nonce, plaintext, bound, start)


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
        return Opened(header, handle.decrypt(bytes(body), _oaep(header, aad)))
    nonce, sealed = bytes(body[:NONCE_BYTES]), body[NONCE_BYTES:]
    return Opened(header, handle.open(nonce, sealed, header.bind(aad)))


def _oaep(header: Header, aad: bytes) -> OAEPParameters:
    return OAEPParameters(
        hash=header.hash, mgf_hash=header.mgf_hash, label=header.bind(aad)
    )


def _with_defaults(
    operation: EncryptOrDecrypt, document: KeyDocument | None
) -> EncryptOrDecrypt:
    if document is None or spec(Algorithm(document.algorithm)).family is not Family.RSA:
        return operation
    return msgspec.structs.replace(
        operation,
        hash=operation.hash or HashAlgorithm.SHA_256,
        mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
    )


_OF_KEMS: Final = {"Encrypt": "Seal", "Decrypt": "Open"}
_OF_OTHERS: Final = {"Seal": "Encrypt", "Open": "Decrypt"}
"""What does the same for the other kind of key."""


def _check_family(
    operation: ops.Encrypt | ops.Decrypt | ops.Seal | ops.Open, row: AlgorithmSpec
) -> None:
    kind = type(operation).__name__
    other = (_OF_KEMS if row.is_kem else _OF_OTHERS).get(kind)
    if other is not None:
        raise UnsupportedOperationError(
            f"key_id: {row.algorithm} keys don't support {kind}; use {other}.",
            algorithm=row.algorithm.value,
            field="key_id",
        )


def _check_envelopes(row: AlgorithmSpec) -> None:
    if row.family is Family.AES:
        raise UnsupportedOperationError(
            f"key_id: {row.algorithm} keys are for RawEncrypt and RawDecrypt only; use "
            f"an {row.algorithm}-GCM key.",
            algorithm=row.algorithm.value,
            field="key_id",
        )


def _check_parameters(operation: ops.Encrypt | ops.Decrypt, row: AlgorithmSpec) -> None:
    _check_family(operation, row)
    _check_envelopes(row)
    if row.family is Family.RSA:
        return
    if operation.encoding is CiphertextEncoding.RAW:
        raise UnsupportedOperationError(
            f"encoding: {row.algorithm} ciphertexts must be envelopes.",
            field="encoding",
        )
    for name in ("hash", "mgf_hash"):
        if getattr(operation, name) is not None:
            raise UnsupportedOperationError(
                f"{name} applies to RSAES-OAEP only.", field=name
            )


def _encrypted(
    key: KeyDocument, ciphertext: bytes, source: int = 0
) -> Answer[ops.Ciphertext]:
    result = ops.Ciphertext(
        key_id=key.key_id, version=key.current, ciphertext=ciphertext
    )
    bound = commitment(Algorithm(key.algorithm), ciphertext)
    return Answer(result, key.current, source=source, bound=bound)


def _decrypted(
    key: KeyDocument, version: int, plaintext: bytes, ciphertext: bytes
) -> Answer[ops.Plaintext]:
    result = ops.Plaintext(key_id=key.key_id, version=version, plaintext=plaintext)
    bound = commitment(Algorithm(key.algorithm), ciphertext)
    return Answer(result, version, bound=bound)


@handles(ops.Encrypt)
class EncryptHandler(UseHandler[ops.Encrypt, ops.Ciphertext]):
    """Encrypt with the current version."""

    current_for, protects = "Encrypt", ("plaintext",)

    def resolve(
        self, operation: ops.Encrypt, document: KeyDocument | None, /
    ) -> ops.Encrypt:
        """Fill the hashes of RSAES-OAEP."""
        return _with_defaults(operation, document)

    def check(self, context: RequestContext[ops.Encrypt], /) -> None:
        """Check the parameters."""
        _check_parameters(context.operation, context.spec)

    def perform(
        self, context: RequestContext[ops.Encrypt], /
    ) -> Answer[ops.Ciphertext]:
        """Encrypt; the nonce is ours, never the caller's."""
        key, operation = context.key, context.operation
        if operation.encoding is CiphertextEncoding.RAW:
            materials = self._services.inventory.materials
            handle = materials.public_handle(key, key.current_version)
            parameters = _raw_parameters(operation)
            return _encrypted(key, handle.encrypt(operation.plaintext, parameters))
        ciphertext = seal_envelope(
            self._services,
            key,
            operation.plaintext,
            operation.aad,
            hash=operation.hash or HashAlgorithm.SHA_256,
            mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
        )
        return _encrypted(key, ciphertext)


@handles(ops.Decrypt)
class DecryptHandler(UseHandler[ops.Decrypt, ops.Plaintext]):
    """Decrypt with the version that the envelope names."""

    def resolve(
        self, operation: ops.Decrypt, document: KeyDocument | None, /
    ) -> ops.Decrypt:
        """Fill the hashes of raw RSAES-OAEP; an envelope brings its own."""
        if operation.encoding is CiphertextEncoding.RAW:
            return _with_defaults(operation, document)
        return operation

    def check(self, context: RequestContext[ops.Decrypt], /) -> None:
        """Check the parameters; an envelope brings them."""
        operation = context.operation
        _check_parameters(operation, context.spec)
        if operation.encoding is CiphertextEncoding.ENVELOPE:
            for name in ("version", "hash", "mgf_hash"):
                if getattr(operation, name) is not None:
                    raise InvalidInputError(
                        f"{name} must be omitted: the envelope names it.", field=name
                    )

    def perform(self, context: RequestContext[ops.Decrypt], /) -> Answer[ops.Plaintext]:
        """Decrypt; whatever is wrong with the ciphertext has one answer."""
        operation, key = context.operation, context.key
        if operation.encoding is CiphertextEncoding.RAW:
            version = require_version(key, operation.version, "Decrypt")
            handle = self._services.inventory.materials.handle(key, version)
            parameters = _raw_parameters(operation)
            plaintext = handle.decrypt(operation.ciphertext, parameters)
            return _decrypted(key, version.version, plaintext, operation.ciphertext)
        opened = open_envelope(
            self._services, key, "Decrypt", operation.ciphertext, operation.aad
        )
        return _decrypted(
            key, opened.header.version, opened.plaintext, operation.ciphertext
        )


def _raw_parameters(operation: ops.Encrypt | ops.Decrypt) -> OAEPParameters:
    return OAEPParameters(
        hash=operation.hash or HashAlgorithm.SHA_256,
        mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
        label=operation.aad,
    )


@handles(ops.Seal)
class SealHandler(UseHandler[ops.Seal, ops.Ciphertext]):
    """Encrypt a message to the current version: encapsulate, derive, encrypt."""

    current_for, protects = "Seal", ("plaintext",)

    def check(self, context: RequestContext[ops.Seal], /) -> None:
        """Check that it is a KEM key."""
        _check_family(context.operation, context.spec)

    def perform(self, context: RequestContext[ops.Seal], /) -> Answer[ops.Ciphertext]:
        """Seal it."""
        key, operation = context.key, context.operation
        sealed = seal_envelope(self._services, key, operation.plaintext, operation.aad)
        return _encrypted(key, sealed)


@handles(ops.Open)
class OpenHandler(UseHandler[ops.Open, ops.Plaintext]):
    """Decrypt what was sealed, with the version that it names."""

    def check(self, context: RequestContext[ops.Open], /) -> None:
        """Check that it is a KEM key."""
        _check_family(context.operation, context.spec)

    def perform(self, context: RequestContext[ops.Open], /) -> Answer[ops.Plaintext]:
        """Decapsulate, derive, decrypt; whatever is wrong has one answer."""
        key, operation = context.key, context.operation
        opened = open_envelope(
            self._services, key, "Open", operation.ciphertext, operation.aad
        )
        return _decrypted(
            key, opened.header.version, opened.plaintext, operation.ciphertext
        )


@handles(ops.GenerateDataKey)
class GenerateDataKeyHandler(UseHandler[ops.GenerateDataKey, ops.DataKey]):
    """Make a data key and encrypt it with the current version."""

    current_for, protects = "GenerateDataKey", ("length",)

    def check(self, context: RequestContext[ops.GenerateDataKey], /) -> None:
        """Check that ciphertexts of the key are envelopes."""
        _check_envelopes(context.spec)

    def perform(
        self, context: RequestContext[ops.GenerateDataKey], /
    ) -> Answer[ops.DataKey]:
        """Draw it from the operating system, and show it only if it is wanted."""
        key, operation = context.key, context.operation
        drawn = self._services.entropy.random_bytes(operation.length)
        wrapped = seal_envelope(self._services, key, drawn, operation.aad)
        return Answer(
            ops.DataKey(
                key_id=key.key_id,
                version=key.current,
                ciphertext=wrapped,
                plaintext=b"" if operation.wrapped_only else drawn,
            ),
            key.current,
            bound=commitment(Algorithm(key.algorithm), wrapped),
        )


@handles(ops.Rewrap)
class RewrapHandler(UseHandler[ops.Rewrap, ops.Ciphertext]):
    """Decrypt with the version that made it, encrypt with the current one."""

    current_for, protects = "Encrypt", ("ciphertext",)

    def check(self, context: RequestContext[ops.Rewrap], /) -> None:
        """Check the other usage that the key needs, and that it has envelopes."""
        check_usage(context.key, KeyUsage.ENCRYPT)
        _check_envelopes(context.spec)

    def perform(self, context: RequestContext[ops.Rewrap], /) -> Answer[ops.Ciphertext]:
        """Do both; the plaintext stays here. One of the newest version is done too."""
        key, operation = context.key, context.operation
        opened = open_envelope(
            self._services, key, "Rewrap", operation.ciphertext, operation.aad
        )
        header = opened.header
        ciphertext = seal_envelope(
            self._services,
            key,
            opened.plaintext,
            operation.aad,
            hash=header.hash,
            mgf_hash=header.mgf_hash,
        )
        return _encrypted(key, ciphertext, header.version)


@handles(ops.Encapsulate)
class EncapsulateHandler(UseHandler[ops.Encapsulate, ops.Encapsulation]):
    """Make a shared secret for the current version."""

    current_for = "Encapsulate"

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
                version=key.current,
                algorithm=Algorithm(key.algorithm),
                ciphertext=ciphertext,
                shared_secret=secret,
            ),
            key.current,
        )


@handles(ops.Decapsulate)
class DecapsulateHandler(UseHandler[ops.Decapsulate, ops.SharedSecret]):
    """Find the shared secret of an encapsulation."""

    def check(self, context: RequestContext[ops.Decapsulate], /) -> None:
        """Check state and length."""
        require_version(context.key, context.operation.version, "Decapsulate")
        check_encapsulation(context.spec.algorithm, context.operation.ciphertext)

    def perform(
        self, context: RequestContext[ops.Decapsulate], /
    ) -> Answer[ops.SharedSecret]:
        """Decapsulate; a changed encapsulation gives another secret."""
        key, operation = context.key, context.operation
        version = require_version(key, operation.version, "Decapsulate")
        handle = self._services.inventory.materials.handle(key, version)
        secret = handle.decapsulate(operation.ciphertext)
        number = version.version
        return Answer(
            ops.SharedSecret(key_id=key.key_id, version=number, shared_secret=secret),
            number,
        )
