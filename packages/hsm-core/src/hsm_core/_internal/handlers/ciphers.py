# SPDX-License-Identifier: MIT
"""Encryption with symmetric and RSA keys: Encrypt, Decrypt."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import Answer, Handler, OperationContext
from hsm_core._internal.handlers.costs import is_quick_use
from hsm_core._internal.handlers.envelopes import open_envelope, seal_envelope
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    CiphertextEncoding,
    Family,
    HashAlgorithm,
    spec,
)
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from hsm_core.protocols import OAEPParameters
from hsm_core.settings import CIPHERTEXT_OVERHEAD_BYTES

EncryptOrDecrypt = TypeVar("EncryptOrDecrypt", ops.Encrypt, ops.Decrypt)


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


def _check_parameters(operation: ops.Encrypt | ops.Decrypt, row: AlgorithmSpec) -> None:
    if row.is_kem:
        kind = type(operation).__name__
        other = "Seal" if isinstance(operation, ops.Encrypt) else "Open"
        raise UnsupportedOperationError(
            f"key_id: {row.algorithm} keys don't support {kind}; use {other}.",
            algorithm=row.algorithm.value,
            field="key_id",
        )
    if row.family is Family.RSA:
        return
    if operation.encoding is CiphertextEncoding.RAW:
        raise UnsupportedOperationError(
            f"encoding: {row.algorithm} ciphertexts must be envelopes.",
            field="encoding",
        )
    for field in ("hash", "mgf_hash"):
        if getattr(operation, field) is not None:
            raise UnsupportedOperationError(
                f"{field} applies to RSAES-OAEP only.", field=field
            )


class EncryptHandler(Handler[ops.Encrypt, ops.Ciphertext]):
    """Encrypt with the current version."""

    def resolve(
        self, operation: ops.Encrypt, document: KeyDocument | None, /
    ) -> ops.Encrypt:
        """Fill the hashes of RSAES-OAEP."""
        return _with_defaults(operation, document)

    def prepare(self, subject: OperationContext[ops.Encrypt], /) -> None:
        """Check sizes, usage, state and parameters."""
        operation, limits = subject.operation, self._services.limits
        self._check_size("plaintext", operation.plaintext, limits.payload_bytes)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(subject.key, ops.Encrypt.usage)
        require_version(subject.key, None, "Encrypt")
        _check_parameters(operation, subject.spec)
        self._services.crypto.require(subject.spec.algorithm)

    def perform(
        self, subject: OperationContext[ops.Encrypt], /
    ) -> Answer[ops.Ciphertext]:
        """Encrypt; the nonce is ours, never the caller's."""
        key, operation = subject.key, subject.operation
        if operation.encoding is CiphertextEncoding.RAW:
            ciphertext = self._raw(subject)
        else:
            ciphertext = seal_envelope(
                self._services,
                key,
                operation.plaintext,
                operation.aad,
                hash=operation.hash or HashAlgorithm.SHA_256,
                mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
            )
        return Answer(
            ops.Ciphertext(
                key_id=key.key_id, version=key.current, ciphertext=ciphertext
            ),
            key.current,
        )

    def _raw(self, subject: OperationContext[ops.Encrypt]) -> bytes:
        handle = self._services.inventory.materials.public_handle(
            subject.key, subject.key.current_version
        )
        operation = subject.operation
        return handle.encrypt(operation.plaintext, _raw_parameters(operation))

    def is_quick(self, operation: ops.Encrypt, /) -> bool:
        """Unless the plaintext is long."""
        size = len(operation.plaintext)
        inventory = self._services.inventory
        return is_quick_use(inventory, operation.key_id, size, private=False)


class DecryptHandler(Handler[ops.Decrypt, ops.Plaintext]):
    """Decrypt with the version that the envelope names."""

    def resolve(
        self, operation: ops.Decrypt, document: KeyDocument | None, /
    ) -> ops.Decrypt:
        """Fill the hashes of raw RSAES-OAEP; an envelope brings its own."""
        if operation.encoding is CiphertextEncoding.RAW:
            return _with_defaults(operation, document)
        return operation

    def prepare(self, subject: OperationContext[ops.Decrypt], /) -> None:
        """Check sizes, usage and parameters."""
        operation, limits = subject.operation, self._services.limits
        longest = limits.payload_bytes + CIPHERTEXT_OVERHEAD_BYTES
        self._check_size("ciphertext", operation.ciphertext, longest)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(subject.key, ops.Decrypt.usage)
        _check_parameters(operation, subject.spec)
        if operation.encoding is CiphertextEncoding.ENVELOPE:
            for field in ("version", "hash", "mgf_hash"):
                if getattr(operation, field) is not None:
                    raise InvalidInputError(
                        f"{field} must be omitted: the envelope names it.", field=field
                    )
        self._services.crypto.require(subject.spec.algorithm)

    def perform(
        self, subject: OperationContext[ops.Decrypt], /
    ) -> Answer[ops.Plaintext]:
        """Decrypt; whatever is wrong with the ciphertext has one answer."""
        operation, key = subject.operation, subject.key
        if operation.encoding is CiphertextEncoding.RAW:
            version, plaintext = self._open_raw(subject)
        else:
            opened = open_envelope(
                self._services, key, "Decrypt", operation.ciphertext, operation.aad
            )
            version, plaintext = opened.header.version, opened.plaintext
        return Answer(
            ops.Plaintext(key_id=key.key_id, version=version, plaintext=plaintext),
            version,
        )

    def _open_raw(self, subject: OperationContext[ops.Decrypt]) -> tuple[int, bytes]:
        operation = subject.operation
        version = require_version(subject.key, operation.version, "Decrypt")
        handle = self._services.inventory.materials.handle(subject.key, version)
        plaintext = handle.decrypt(operation.ciphertext, _raw_parameters(operation))
        return version.version, plaintext

    def is_quick(self, operation: ops.Decrypt, /) -> bool:
        """Unless the ciphertext is long, or the key one of RSA."""
        size = len(operation.ciphertext)
        inventory = self._services.inventory
        return is_quick_use(inventory, operation.key_id, size, private=True)


def _raw_parameters(operation: ops.Encrypt | ops.Decrypt) -> OAEPParameters:
    return OAEPParameters(
        hash=operation.hash or HashAlgorithm.SHA_256,
        mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
        label=operation.aad,
    )
