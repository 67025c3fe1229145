# SPDX-License-Identifier: MIT
"""DeriveKey: a symmetric key from another key, by HKDF."""

from __future__ import annotations

from collections.abc import Sequence

from hsm_core import operations as ops
from hsm_core._internal.crypto.hkdf import ALGORITHM_OF, hkdf
from hsm_core._internal.handlers.base import OperationContext, Plan
from hsm_core._internal.handlers.new_keys import NewKeyHandler
from hsm_core._internal.keyring.use_counters import Use
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    Family,
    HashAlgorithm,
    KeyUsage,
    spec,
)
from hsm_core.errors import (
    InvalidInputError,
    KeyUsageError,
    UnsupportedOperationError,
)
from hsm_core.model import KeyOrigin


class DeriveKeyHandler(NewKeyHandler[ops.DeriveKey]):
    """Derive from an HKDF key, or from what ECDH agrees on."""

    def prepare(self, subject: OperationContext[ops.DeriveKey], /) -> None:
        """Check the new key's facts, and that the base key may and can derive it."""
        super().prepare(subject)
        operation = subject.operation
        row = spec(Algorithm(operation.algorithm))
        if row.is_asymmetric:
            raise UnsupportedOperationError(
                f"algorithm must be symmetric for a derived key, got {row.algorithm}.",
                field="algorithm",
            )
        base = subject.others["base_key_id"]
        check_usage(base, KeyUsage.DERIVE, field="base_key_id")
        require_version(base, None, "derive")
        if operation.exportable and not base.exportable:
            raise KeyUsageError(
                "exportable must be false: the base key is not exportable.",
                field="exportable",
            )
        base_row = spec(Algorithm(base.algorithm))
        _check_parameters(operation, base_row)
        self._services.crypto.require(base_row.algorithm)
        self._services.crypto.require(ALGORITHM_OF[_hash(operation, base_row)])

    def uses(self, subject: OperationContext[ops.DeriveKey], /) -> Sequence[Use]:
        """Count one derivation of the base key."""
        base = subject.others["base_key_id"]
        return (Use(base, base.current_version),)

    def plan(self, subject: OperationContext[ops.DeriveKey], /) -> Plan:
        """Derive, test and seal."""
        algorithm = Algorithm(subject.operation.algorithm)
        material = self._derive(subject, spec(algorithm).key_bytes)
        made = self._services.crypto.adopt(algorithm, material)
        return self._new_key(subject, made, KeyOrigin.DERIVED)

    def _derive(self, subject: OperationContext[ops.DeriveKey], length: int) -> bytes:
        operation, base = subject.operation, subject.others["base_key_id"]
        handle = self._services.inventory.materials.handle(base, base.current_version)
        if operation.peer_public_key is None:
            return handle.derive(operation.salt, operation.info, length)
        secret = handle.agree(operation.peer_public_key)
        return hkdf(
            _hash(operation, spec(Algorithm(base.algorithm))),
            secret,
            salt=operation.salt,
            info=operation.info,
            length=length,
        )


def _check_parameters(operation: ops.DeriveKey, base: AlgorithmSpec) -> None:
    if base.family is not Family.KDF and operation.peer_public_key is None:
        raise InvalidInputError(
            f"peer_public_key is required for {base.algorithm} keys.",
            field="peer_public_key",
        )
    if base.family is not Family.KDF:
        return
    if operation.peer_public_key is not None:
        raise UnsupportedOperationError(
            "peer_public_key applies to ECDH only.", field="peer_public_key"
        )
    if operation.hash not in {None, base.hashes[0]}:
        raise UnsupportedOperationError(
            f"hash: {base.algorithm} has {base.hashes[0]} only.", field="hash"
        )


def _hash(operation: ops.DeriveKey, base: AlgorithmSpec) -> HashAlgorithm:
    if base.family is Family.KDF:
        return base.hashes[0]
    return operation.hash or HashAlgorithm.SHA_256
