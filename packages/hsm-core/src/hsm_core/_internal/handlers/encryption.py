# SPDX-License-Identifier: MIT
"""Encrypt, Decrypt, Rewrap, GenerateDataKey."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    ProtectingHandler,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.encapsulation import open_envelope, seal_envelope
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


@handles(ops.Encrypt)
class EncryptHandler(ProtectingHandler[ops.Encrypt, ops.Ciphertext]):
    """Encrypt with the current version."""

    def resolve(
        self, operation: ops.Encrypt, document: KeyDocument | None, /
    ) -> ops.Encrypt:
        """Fill the hashes of RSAES-OAEP."""
        return _with_defaults(operation, document)

    def prepare(self, context: RequestContext[ops.Encrypt], /) -> None:
        """Check sizes, usage, state and parameters."""
        operation, limits = context.operation, self._services.settings.limits
        self._check_size("plaintext", operation.plaintext, limits.payload_bytes)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(context.key, ops.Encrypt.usage)
        require_version(context.key, None, "Encrypt")
        _check_parameters(operation, context.spec)
        self._services.crypto.require(context.spec.algorithm)

    def protected_bytes(self, operation: ops.Encrypt, /) -> int:
        """Return the length of the data."""
        return len(operation.plaintext)

    def perform(
        self, context: RequestContext[ops.Encrypt], /
    ) -> Answer[ops.Ciphertext]:
        """Encrypt; the nonce is ours, never the caller's."""
        key, operation = context.key, context.operation
        if operation.encoding is CiphertextEncoding.RAW:
            ciphertext = self._raw(context)
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

    def _raw(self, context: RequestContext[ops.Encrypt]) -> bytes:
        handle = self._services.inventory.materials.public_handle(
            context.key, context.key.current_version
        )
        operation = context.operation
        return handle.encrypt(operation.plaintext, _raw_parameters(operation))


@handles(ops.Decrypt)
class DecryptHandler(Handler[ops.Decrypt, ops.Plaintext]):
    """Decrypt with the version that the envelope names."""

    def resolve(
        self, operation: ops.Decrypt, document: KeyDocument | None, /
    ) -> ops.Decrypt:
        """Fill the hashes of raw RSAES-OAEP; an envelope brings its own."""
        if operation.encoding is CiphertextEncoding.RAW:
            return _with_defaults(operation, document)
        return operation

    def prepare(self, context: RequestContext[ops.Decrypt], /) -> None:
        """Check sizes, usage and parameters."""
        operation, limits = context.operation, self._services.settings.limits
        longest = limits.payload_bytes + CIPHERTEXT_OVERHEAD_BYTES
        self._check_size("ciphertext", operation.ciphertext, longest)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(context.key, ops.Decrypt.usage)
        _check_parameters(operation, context.spec)
        if operation.encoding is CiphertextEncoding.ENVELOPE:
            for field in ("version", "hash", "mgf_hash"):
                if getattr(operation, field) is not None:
                    raise InvalidInputError(
                        f"{field} must be omitted: the envelope names it.", field=field
                    )
        self._services.crypto.require(context.spec.algorithm)

    def perform(self, context: RequestContext[ops.Decrypt], /) -> Answer[ops.Plaintext]:
        """Decrypt; whatever is wrong with the ciphertext has one answer."""
        operation, key = context.operation, context.key
        if operation.encoding is CiphertextEncoding.RAW:
            version, plaintext = self._open_raw(context)
        else:
            opened = open_envelope(
                self._services, key, "Decrypt", operation.ciphertext, operation.aad
            )
            version, plaintext = opened.header.version, opened.plaintext
        return Answer(
            ops.Plaintext(key_id=key.key_id, version=version, plaintext=plaintext),
            version,
        )

    def _open_raw(self, context: RequestContext[ops.Decrypt]) -> tuple[int, bytes]:
        operation = context.operation
        version = require_version(context.key, operation.version, "Decrypt")
        handle = self._services.inventory.materials.handle(context.key, version)
        plaintext = handle.decrypt(operation.ciphertext, _raw_parameters(operation))
        return version.version, plaintext


def _raw_parameters(operation: ops.Encrypt | ops.Decrypt) -> OAEPParameters:
    return OAEPParameters(
        hash=operation.hash or HashAlgorithm.SHA_256,
        mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
        label=operation.aad,
    )


@handles(ops.GenerateDataKey)
class GenerateDataKeyHandler(ProtectingHandler[ops.GenerateDataKey, ops.DataKey]):
    """Make a data key and encrypt it with the current version."""

    def prepare(self, context: RequestContext[ops.GenerateDataKey], /) -> None:
        """Check size, usage and state."""
        limit = self._services.settings.limits.aad_bytes
        self._check_size("aad", context.operation.aad, limit)
        check_usage(context.key, ops.GenerateDataKey.usage)
        require_version(context.key, None, "GenerateDataKey")
        self._services.crypto.require(context.spec.algorithm)

    def protected_bytes(self, operation: ops.GenerateDataKey, /) -> int:
        """Return the length of the key."""
        return operation.length

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
        )


@handles(ops.Rewrap)
class RewrapHandler(ProtectingHandler[ops.Rewrap, ops.Ciphertext]):
    """Decrypt with the version that made it, encrypt with the current one."""

    def prepare(self, context: RequestContext[ops.Rewrap], /) -> None:
        """Check sizes, both usages, and that the current version may encrypt."""
        operation, limits = context.operation, self._services.settings.limits
        longest = limits.payload_bytes + CIPHERTEXT_OVERHEAD_BYTES
        self._check_size("ciphertext", operation.ciphertext, longest)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        for usage in (KeyUsage.DECRYPT, KeyUsage.ENCRYPT):
            check_usage(context.key, usage)
        require_version(context.key, None, "Encrypt")
        self._services.crypto.require(context.spec.algorithm)

    def protected_bytes(self, operation: ops.Rewrap, /) -> int:
        """Return the length of the data."""
        return len(operation.ciphertext)

    def perform(self, context: RequestContext[ops.Rewrap], /) -> Answer[ops.Ciphertext]:
        """Do both; the plaintext stays here. One of the newest version is done too."""
        key, operation = context.key, context.operation
        opened = open_envelope(
            self._services, key, "Rewrap", operation.ciphertext, operation.aad
        )
        ciphertext = seal_envelope(
            self._services,
            key,
            opened.plaintext,
            operation.aad,
            hash=opened.header.hash,
            mgf_hash=opened.header.mgf_hash,
        )
        result = ops.Ciphertext(
            key_id=key.key_id, version=key.current, ciphertext=ciphertext
        )
        return Answer(result, key.current, source=opened.header.version)
