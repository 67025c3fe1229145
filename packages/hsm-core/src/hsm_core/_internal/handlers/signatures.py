# SPDX-License-Identifier: MIT
"""Signatures: Sign, Verify."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.documents import KeyDocument
from hsm_core._internal.handlers.base import Answer, Handler, Subject
from hsm_core._internal.handlers.versions import (
    check_usage,
    is_short_walk,
    require_version,
    usable_versions,
)
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    Family,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    spec,
)
from hsm_core.errors import (
    InputSizeError,
    InvalidInputError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from hsm_core.protocols import SignatureParameters

__all__ = ["SignHandler", "VerifyHandler"]

_INLINE_BYTES: Final = 64 * 1024

SignOrVerify = TypeVar("SignOrVerify", ops.Sign, ops.Verify)


def _with_defaults(operation: SignOrVerify, row: AlgorithmSpec) -> SignOrVerify:
    if not row.schemes:
        return operation
    if row.family is Family.EDDSA:
        return msgspec.structs.replace(
            operation, scheme=operation.scheme or row.schemes[0]
        )
    return msgspec.structs.replace(
        operation,
        scheme=operation.scheme or row.schemes[0],
        hash=operation.hash or row.hashes[0],
        encoding=operation.encoding
        or (SignatureEncoding.DER if row.family is Family.ECDSA else None),
    )


def _check_parameters(
    operation: ops.Sign | ops.Verify,
    row: AlgorithmSpec,
    hashes: tuple[HashAlgorithm, ...],
) -> None:
    if operation.scheme not in row.schemes:
        raise UnsupportedOperationError(
            f"scheme: {row.algorithm} has {', '.join(row.schemes)}.", field="scheme"
        )
    if operation.hash is not None and operation.hash not in hashes:
        allowed = ", ".join(hashes) or "no hash to choose"
        raise UnsupportedOperationError(
            f"hash: {row.algorithm} has {allowed} here.", field="hash"
        )
    if operation.encoding is not None and row.family is not Family.ECDSA:
        raise UnsupportedOperationError(
            f"encoding: {row.algorithm} signatures have one encoding only.",
            field="encoding",
        )
    if (operation.message is None) == (operation.digest is None):
        raise InvalidInputError(
            "Give either message or digest, and not both.", field="message"
        )
    _check_digest(operation, row)


def _check_digest(operation: ops.Sign | ops.Verify, row: AlgorithmSpec) -> None:
    if operation.digest is None:
        return
    if operation.hash is None:
        raise UnsupportedOperationError(
            f"digest: {row.algorithm} signs whole messages only.", field="digest"
        )
    wanted = operation.hash.digest_bytes
    if len(operation.digest) != wanted:
        raise InputSizeError(
            "digest", actual=len(operation.digest), minimum=wanted, maximum=wanted
        )


def _data(operation: ops.Sign | ops.Verify) -> bytes:
    return (
        operation.digest if operation.digest is not None else operation.message or b""
    )


class SignHandler(Handler[ops.Sign, ops.Signature]):
    """Sign with the current version."""

    def resolve(self, operation: ops.Sign, document: KeyDocument | None, /) -> ops.Sign:
        """Fill scheme, hash and encoding by the table."""
        if document is None:
            return operation
        return _with_defaults(operation, spec(Algorithm(document.algorithm)))

    def prepare(self, subject: Subject[ops.Sign], /) -> None:
        """Check size, usage, state and parameters."""
        operation, row = subject.operation, subject.spec
        limit = self._services.limits.payload_bytes
        self._check_size("message", operation.message, limit)
        check_usage(subject.key, ops.Sign.usage)
        require_version(subject.key, None, "Sign", revoked_allowed=False)
        _check_parameters(operation, row, row.hashes)
        self._services.crypto.require(row.algorithm)

    def perform(self, subject: Subject[ops.Sign], /) -> Answer[ops.Signature]:
        """Sign."""
        operation, key = subject.operation, subject.key
        version = key.current_version
        scheme = operation.scheme or SignatureScheme.EDDSA
        hashed = operation.hash or HashAlgorithm.SHA_512
        signature = self._services.inventory.materials.handle(key, version).sign(
            _data(operation),
            SignatureParameters(
                scheme=scheme,
                hash=hashed,
                mgf_hash=hashed,
                encoding=operation.encoding or SignatureEncoding.DER,
                prehashed=operation.digest is not None,
            ),
        )
        return Answer(
            ops.Signature(
                key_id=key.key_id,
                version=version.version,
                algorithm=Algorithm(key.algorithm),
                scheme=scheme,
                signature=signature,
                hash=operation.hash,
                encoding=operation.encoding,
            ),
            version.version,
        )

    def is_quick(self, operation: ops.Sign, /) -> bool:
        """Unless the message is long."""
        return len(_data(operation)) <= _INLINE_BYTES


class VerifyHandler(Handler[ops.Verify, ops.Verified]):
    """Check a signature."""

    def resolve(
        self, operation: ops.Verify, document: KeyDocument | None, /
    ) -> ops.Verify:
        """Fill scheme, hash and encoding by the table."""
        if document is None:
            return operation
        return _with_defaults(operation, spec(Algorithm(document.algorithm)))

    def prepare(self, subject: Subject[ops.Verify], /) -> None:
        """Check size, usage, state and parameters."""
        operation, row = subject.operation, subject.spec
        limit = self._services.limits.payload_bytes
        self._check_size("message", operation.message, limit)
        self._check_size("signature", operation.signature, limit)
        check_usage(subject.key, ops.Verify.usage)
        _check_parameters(operation, row, row.verify_hashes)
        if operation.scheme is not SignatureScheme.RSASSA_PSS:
            for field in ("mgf_hash", "salt_bytes"):
                if getattr(operation, field) is not None:
                    raise UnsupportedOperationError(
                        f"{field} is a parameter of RSASSA-PSS only.", field=field
                    )
        self._services.crypto.require(row.algorithm)

    def perform(self, subject: Subject[ops.Verify], /) -> Answer[ops.Verified]:
        """Try the versions that may verify, newest first."""
        operation, key = subject.operation, subject.key
        allowed = self._services.policy.allows_revoked("Verify")
        versions = usable_versions(
            key, operation.version, "Verify", revoked_allowed=allowed
        )
        hashed = operation.hash or HashAlgorithm.SHA_512
        parameters = SignatureParameters(
            scheme=operation.scheme or SignatureScheme.EDDSA,
            hash=hashed,
            mgf_hash=operation.mgf_hash or hashed,
            encoding=operation.encoding or SignatureEncoding.DER,
            salt_bytes=operation.salt_bytes,
            prehashed=operation.digest is not None,
        )
        for version in versions:
            handle = self._services.inventory.materials.public_handle(key, version)
            try:
                handle.verify(_data(operation), operation.signature, parameters)
            except SignatureMismatchError:
                continue
            return Answer(
                ops.Verified(
                    key_id=key.key_id,
                    version=version.version,
                    algorithm=Algorithm(key.algorithm),
                ),
                version.version,
            )
        raise SignatureMismatchError

    def is_quick(self, operation: ops.Verify, /) -> bool:
        """Unless the message is long, or many versions may have to be tried."""
        document = self._services.inventory.known(operation.key_id)
        return len(_data(operation)) <= _INLINE_BYTES and is_short_walk(
            document, operation.version
        )
