# SPDX-License-Identifier: MIT
"""ImportKey: a key from material that was wrapped for this HSM."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.formats import check_format, usable_form
from hsm_core._internal.crypto.key_transport import check_mechanism, unwrap_key
from hsm_core._internal.handlers.base import OperationContext, Plan
from hsm_core._internal.handlers.new_keys import NewKeyHandler
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.use_counters import Use
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import Algorithm, HashAlgorithm, KeyFormat, KeyUsage, spec
from hsm_core.model import KeyOrigin
from hsm_core.protocols import OAEPParameters


class ImportKeyHandler(NewKeyHandler[ops.ImportKey]):
    """Unwrap, check, keep."""

    def resolve(
        self, operation: ops.ImportKey, document: KeyDocument | None, /
    ) -> ops.ImportKey:
        """Fill algorithm, usages and format by the table."""
        filled = super().resolve(operation, document)
        row = spec(Algorithm(filled.algorithm))
        usual = KeyFormat.PKCS8 if row.is_asymmetric else KeyFormat.RAW
        return msgspec.structs.replace(filled, format=filled.format or usual)

    def prepare(self, subject: OperationContext[ops.ImportKey], /) -> None:
        """Check the new key's facts, and that the wrapping key may unwrap this way."""
        super().prepare(subject)
        operation = subject.operation
        check_format(spec(Algorithm(operation.algorithm)), operation.format)
        wrapping = subject.others["wrapping_key_id"]
        check_usage(wrapping, KeyUsage.UNWRAP, field="wrapping_key_id")
        require_version(
            wrapping, operation.wrapping_version, "unwrap", field="wrapping_version"
        )
        row = spec(Algorithm(wrapping.algorithm))
        check_mechanism(row, operation.mechanism, operation.hash, operation.mgf_hash)
        self._services.crypto.require(row.algorithm)
        self._services.crypto.require(Algorithm.AES_256_KW)

    def uses(self, subject: OperationContext[ops.ImportKey], /) -> Sequence[Use]:
        """Note that the wrapping key was used; unwrapping protects nothing."""
        wrapping = subject.others["wrapping_key_id"]
        version = require_version(
            wrapping, subject.operation.wrapping_version, "unwrap"
        )
        return (Use(wrapping, version, 0),)

    def plan(self, subject: OperationContext[ops.ImportKey], /) -> Plan:
        """
        Unwrap the material and check it fully.

        What is wrong with the wrapping has one answer; what is wrong with the material
        is said, since only who can wrap for this HSM gets so far.
        """
        algorithm = Algorithm(subject.operation.algorithm)
        data = self._unwrap(subject)
        format = check_format(spec(algorithm), subject.operation.format)
        material = usable_form(algorithm, format, data)
        return self._new_key(
            subject,
            self._services.crypto.adopt(algorithm, material),
            KeyOrigin.IMPORTED,
        )

    def _unwrap(self, subject: OperationContext[ops.ImportKey]) -> bytes:
        operation, crypto = subject.operation, self._services.crypto
        wrapping = subject.others["wrapping_key_id"]
        version = require_version(wrapping, operation.wrapping_version, "unwrap")
        row = spec(Algorithm(wrapping.algorithm))
        oaep = OAEPParameters(
            hash=operation.hash or HashAlgorithm.SHA_256,
            mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
        )
        handle = self._services.inventory.materials.handle(wrapping, version)
        mechanism = check_mechanism(row, operation.mechanism)
        return unwrap_key(crypto, handle, mechanism, operation.wrapped, oaep)
