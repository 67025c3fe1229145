# SPDX-License-Identifier: MIT
"""Encryption: Encrypt, Decrypt."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal import ciphertexts
from hsm_core._internal.ciphertexts import CipherKind, Header
from hsm_core._internal.documents import KeyDocument, VersionDocument
from hsm_core._internal.handlers.base import Answer, Handler, Subject
from hsm_core._internal.handlers.versions import check_usage, require_version
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    CiphertextEncoding,
    Family,
    HashAlgorithm,
    spec,
)
from hsm_core.errors import (
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    UnsupportedOperationError,
)
from hsm_core.protocols import OAEPParameters
from hsm_core.settings import CIPHERTEXT_OVERHEAD_BYTES

__all__ = ["DecryptHandler", "EncryptHandler"]

_INLINE_BYTES: Final = 64 * 1024

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
    if row.family is Family.RSA:
        return
    if operation.encoding is CiphertextEncoding.RAW:
        raise UnsupportedOperationError(
            f"encoding: {row.algorithm} ciphertexts come in envelopes only.",
            field="encoding",
        )
    for field in ("hash", "mgf_hash"):
        if getattr(operation, field) is not None:
            raise UnsupportedOperationError(
                f"{field} is a parameter of RSAES-OAEP only.", field=field
            )


class EncryptHandler(Handler[ops.Encrypt, ops.Ciphertext]):
    """Encrypt with the current version."""

    def resolve(
        self, operation: ops.Encrypt, document: KeyDocument | None, /
    ) -> ops.Encrypt:
        """Fill the hashes of RSAES-OAEP."""
        return _with_defaults(operation, document)

    def prepare(self, subject: Subject[ops.Encrypt], /) -> None:
        """Check sizes, usage, state and parameters."""
        operation, limits = subject.operation, self._services.limits
        self._check_size("plaintext", operation.plaintext, limits.payload_bytes)
        self._check_size("aad", operation.aad, limits.aad_bytes)
        check_usage(subject.key, ops.Encrypt.usage)
        require_version(subject.key, None, "Encrypt", revoked_allowed=False)
        _check_parameters(operation, subject.spec)
        self._services.crypto.require(subject.spec.algorithm)

    def perform(self, subject: Subject[ops.Encrypt], /) -> Answer[ops.Ciphertext]:
        """Encrypt; the nonce is ours, never the caller's."""
        key, version = subject.key, subject.key.current_version
        if subject.spec.family is Family.RSA:
            ciphertext = self._oaep(subject, version)
        else:
            ciphertext = self._gcm(subject, version)
        return Answer(
            ops.Ciphertext(
                key_id=key.key_id, version=version.version, ciphertext=ciphertext
            ),
            version.version,
        )

    def _gcm(self, subject: Subject[ops.Encrypt], version: VersionDocument) -> bytes:
        key, operation = subject.key, subject.operation
        header = Header(CipherKind.AES_256_GCM, key.key_id, version.version)
        nonce = self._services.entropy.random_bytes(ciphertexts.NONCE_BYTES)
        handle = self._services.inventory.materials.handle(key, version)
        sealed = handle.seal(nonce, operation.plaintext, header.bind(operation.aad))
        return header.encode() + nonce + sealed

    def _oaep(self, subject: Subject[ops.Encrypt], version: VersionDocument) -> bytes:
        key, operation = subject.key, subject.operation
        hashed = operation.hash or HashAlgorithm.SHA_256
        mgf_hash = operation.mgf_hash or HashAlgorithm.SHA_256
        header = Header(
            CipherKind.RSAES_OAEP, key.key_id, version.version, hashed, mgf_hash
        )
        raw = operation.encoding is CiphertextEncoding.RAW
        label = operation.aad if raw else header.bind(operation.aad)
        ciphertext = self._services.inventory.materials.handle(key, version).encrypt(
            operation.plaintext,
            OAEPParameters(hash=hashed, mgf_hash=mgf_hash, label=label),
        )
        return ciphertext if raw else header.encode() + ciphertext

    def is_quick(self, operation: ops.Encrypt, /) -> bool:
        """Unless the plaintext is long."""
        return len(operation.plaintext) <= _INLINE_BYTES


class DecryptHandler(Handler[ops.Decrypt, ops.Plaintext]):
    """Decrypt with the version that the envelope names."""

    def resolve(
        self, operation: ops.Decrypt, document: KeyDocument | None, /
    ) -> ops.Decrypt:
        """Fill the hashes of raw RSAES-OAEP; an envelope brings its own."""
        if operation.encoding is CiphertextEncoding.RAW:
            return _with_defaults(operation, document)
        return operation

    def prepare(self, subject: Subject[ops.Decrypt], /) -> None:
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
                        f"{field}: an envelope names its own.", field=field
                    )
        self._services.crypto.require(subject.spec.algorithm)

    def perform(self, subject: Subject[ops.Decrypt], /) -> Answer[ops.Plaintext]:
        """Decrypt; whatever is wrong with the ciphertext has one answer."""
        if subject.operation.encoding is CiphertextEncoding.RAW:
            version, plaintext = self._open_raw(subject)
        else:
            version, plaintext = self._open_envelope(subject)
        return Answer(
            ops.Plaintext(
                key_id=subject.key.key_id, version=version, plaintext=plaintext
            ),
            version,
        )

    def _open_raw(self, subject: Subject[ops.Decrypt]) -> tuple[int, bytes]:
        operation = subject.operation
        version = self._usable(subject, operation.version)
        handle = self._services.inventory.materials.handle(subject.key, version)
        parameters = OAEPParameters(
            hash=operation.hash or HashAlgorithm.SHA_256,
            mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
            label=operation.aad,
        )
        return version.version, handle.decrypt(operation.ciphertext, parameters)

    def _open_envelope(self, subject: Subject[ops.Decrypt]) -> tuple[int, bytes]:
        header, body = ciphertexts.parse(subject.operation.ciphertext)
        rsa = subject.spec.family is Family.RSA
        wanted = CipherKind.RSAES_OAEP if rsa else CipherKind.AES_256_GCM
        if header.key_id != subject.key.key_id or header.kind is not wanted:
            raise DecryptionError
        try:
            version = self._usable(subject, header.version)
        except KeyNotFoundError:
            raise DecryptionError from None
        handle = self._services.inventory.materials.handle(subject.key, version)
        bound = header.bind(subject.operation.aad)
        if rsa:
            parameters = OAEPParameters(
                hash=header.hash, mgf_hash=header.mgf_hash, label=bound
            )
            return version.version, handle.decrypt(body, parameters)
        nonce, sealed = (
            body[: ciphertexts.NONCE_BYTES],
            body[ciphertexts.NONCE_BYTES :],
        )
        return version.version, handle.open(nonce, sealed, bound)

    def _usable(
        self, subject: Subject[ops.Decrypt], number: int | None
    ) -> VersionDocument:
        return require_version(subject.key, number, "Decrypt", revoked_allowed=False)

    def is_quick(self, operation: ops.Decrypt, /) -> bool:
        """Unless the ciphertext is long."""
        return len(operation.ciphertext) <= _INLINE_BYTES
