# SPDX-License-Identifier: MIT
"""Signatures: Sign, Verify."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.parameters import (
    signing_input,
    verification_input,
)
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    ProtectingHandler,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.versions import (
    check_usage,
    is_short_walk,
    require_version,
    usable_versions,
)
from hsm_core.algorithms import Algorithm, AlgorithmSpec, SignatureEncoding, spec
from hsm_core.errors import SignatureMismatchError
from hsm_core.protocols import SignatureParameters

SignOrVerify = TypeVar("SignOrVerify", ops.Sign, ops.Verify)


def _with_defaults(operation: SignOrVerify, row: AlgorithmSpec) -> SignOrVerify:
    if not row.schemes:
        return operation
    return msgspec.structs.replace(
        operation,
        scheme=operation.scheme or row.schemes[0],
        hash=operation.hash or (row.hashes[0] if row.hashes else None),
        encoding=operation.encoding
        or (SignatureEncoding.DER if row.coordinate_bytes else None),
    )


def _verify_input(
    operation: ops.Verify, algorithm: Algorithm
) -> tuple[bytes, SignatureParameters]:
    return verification_input(
        algorithm,
        operation.message,
        operation.digest,
        operation.mu,
        scheme=operation.scheme,
        hash=operation.hash,
        encoding=operation.encoding,
        mgf_hash=operation.mgf_hash,
        salt_bytes=operation.salt_bytes,
        context=operation.context,
    )


@handles(ops.Sign)
class SignHandler(ProtectingHandler[ops.Sign, ops.Signature]):
    """Sign with the current version."""

    def resolve(self, operation: ops.Sign, document: KeyDocument | None, /) -> ops.Sign:
        """Fill scheme, hash and encoding by the table."""
        if document is None:
            return operation
        return _with_defaults(operation, spec(Algorithm(document.algorithm)))

    def prepare(self, context: RequestContext[ops.Sign], /) -> None:
        """Check size, usage, state and parameters."""
        operation, key = context.operation, context.key
        limit = self._services.settings.limits.payload_bytes
        self._check_size("message", operation.message, limit)
        check_usage(key, ops.Sign.usage)
        version = require_version(key, None, "Sign")
        algorithm = Algorithm(key.algorithm)
        data, parameters = signing_input(
            algorithm,
            operation.message,
            operation.digest,
            operation.mu,
            scheme=operation.scheme,
            hash=operation.hash,
            encoding=operation.encoding,
            context=operation.context,
        )
        context.prepared = [version, data, parameters]
        self._services.crypto.require(algorithm)

    def protected_bytes(self, operation: ops.Sign, /) -> int:
        """Return the length of the data."""
        return len(operation.message or operation.digest or operation.mu or b"")

    def perform(self, context: RequestContext[ops.Sign], /) -> Answer[ops.Signature]:
        """Sign."""
        operation, key = context.operation, context.key
        version, data, parameters = context.prepared
        handle = self._services.inventory.materials.handle(key, version)
        signature = handle.sign(data, parameters)
        return Answer(
            ops.Signature(
                key_id=key.key_id,
                version=version.version,
                algorithm=Algorithm(key.algorithm),
                scheme=parameters.scheme,
                signature=signature,
                hash=operation.hash,
                encoding=operation.encoding,
            ),
            version.version,
        )


@handles(ops.Verify)
class VerifyHandler(Handler[ops.Verify, ops.Verified]):
    """Check a signature."""

    def resolve(
        self, operation: ops.Verify, document: KeyDocument | None, /
    ) -> ops.Verify:
        """Fill scheme, hash and encoding by the table."""
        if document is None:
            return operation
        return _with_defaults(operation, spec(Algorithm(document.algorithm)))

    def prepare(self, context: RequestContext[ops.Verify], /) -> None:
        """Check size, usage, state and parameters."""
        operation, row = context.operation, context.spec
        limit = self._services.settings.limits.payload_bytes
        self._check_size("message", operation.message, limit)
        self._check_size("signature", operation.signature, limit)
        check_usage(context.key, ops.Verify.usage)
        _verify_input(operation, row.algorithm)
        self._services.crypto.require(row.algorithm)

    def perform(self, context: RequestContext[ops.Verify], /) -> Answer[ops.Verified]:
        """Try the versions that may verify, newest first."""
        operation, key = context.operation, context.key
        allowed = context.policy.allows_revoked("Verify")
        versions = usable_versions(
            key, operation.version, "Verify", revoked_allowed=allowed
        )
        data, parameters = _verify_input(operation, context.spec.algorithm)
        for version in versions:
            handle = self._services.inventory.materials.public_handle(key, version)
            try:
                handle.verify(data, operation.signature, parameters)
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
        """Unless many versions may have to be tried."""
        document = self._services.inventory.known(operation.key_id)
        is_short = is_short_walk(document, operation.version)
        return is_short and super().is_quick(operation)
