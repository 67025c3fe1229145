# SPDX-License-Identifier: MIT
"""ImportKey, ExportKey: wrapped keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.formats import check_format, shown_form, usable_form
from hsm_core._internal.crypto.key_transport import (
    check_mechanism,
    unwrap_key,
    wrap_key,
)
from hsm_core._internal.handlers.base import Answer, Handler, Plan, Speed, handles
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.handlers.key_creation import NewKeyHandler
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.use_counters import Use
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    Family,
    HashAlgorithm,
    KeyFormat,
    KeyUsage,
    WrapMechanism,
    spec,
)
from hsm_core.errors import InvalidInputError, KeyUsageError, UnsupportedOperationError
from hsm_core.model import KeyOrigin
from hsm_core.protocols import OAEPParameters


def _usual_format(row: AlgorithmSpec) -> KeyFormat:
    return KeyFormat.PKCS8 if row.is_asymmetric else KeyFormat.RAW


def _oaep(operation: ops.ImportKey | ops.ExportKey) -> OAEPParameters:
    return OAEPParameters(
        hash=operation.hash or HashAlgorithm.SHA_256,
        mgf_hash=operation.mgf_hash or HashAlgorithm.SHA_256,
    )


@handles(ops.ImportKey)
class ImportKeyHandler(NewKeyHandler[ops.ImportKey]):
    """Unwrap, check, keep."""

    def resolve(
        self, operation: ops.ImportKey, document: KeyDocument | None, /
    ) -> ops.ImportKey:
        """Fill algorithm, usages and format by the table."""
        filled = super().resolve(operation, document)
        usual = _usual_format(spec(Algorithm(filled.algorithm)))
        return msgspec.structs.replace(filled, format=filled.format or usual)

    def prepare(self, context: RequestContext[ops.ImportKey], /) -> None:
        """Check the new key's facts, and that the wrapping key may unwrap this way."""
        super().prepare(context)
        operation = context.operation
        format = check_format(spec(Algorithm(operation.algorithm)), operation.format)
        wrapping = context.others["wrapping_key_id"]
        check_usage(wrapping, KeyUsage.UNWRAP, field="wrapping_key_id")
        version = require_version(
            wrapping, operation.wrapping_version, "unwrap", field="wrapping_version"
        )
        row = spec(Algorithm(wrapping.algorithm))
        mechanism = check_mechanism(
            row, operation.mechanism, operation.hash, operation.mgf_hash
        )
        context.prepared[:] = version, mechanism, format
        self._services.crypto.require(row.algorithm)
        self._services.crypto.require(Algorithm.AES_256_KW)

    def uses(self, context: RequestContext[ops.ImportKey], /) -> Sequence[Use]:
        """Note that the wrapping key was used; unwrapping protects nothing."""
        return (Use(context.others["wrapping_key_id"], context.prepared[0], 0),)

    def plan(self, context: RequestContext[ops.ImportKey], /) -> Plan:
        """
        Unwrap the material and check it fully.

        What is wrong with the wrapping has one answer; what is wrong with the material
        is said, since only who can wrap for this HSM gets so far.
        """
        operation, services = context.operation, self._services
        version, mechanism, format = context.prepared
        wrapping = context.others["wrapping_key_id"]
        handle = services.inventory.materials.handle(wrapping, version)
        data = unwrap_key(
            services.crypto, handle, mechanism, operation.wrapped, _oaep(operation)
        )
        algorithm = Algorithm(operation.algorithm)
        made = services.crypto.adopt(algorithm, usable_form(algorithm, format, data))
        return self._new_key(context, made, KeyOrigin.IMPORTED)


_ENOUGH_BITS: Final = 128
"""
Security strength in bits that is enough to wrap any key (SP 800-57 part 1, table 4).
"""
_CARRIED: Final = frozenset({Family.AEAD, Family.AES, Family.MAC})
"""
Families that any category carries, RSA's 0 too, as other systems expect.

Not so key-wrapping and derivation keys, on which the secrecy of other keys rests.
"""

_KW_BLOCK: Final = 8
_KW_MINIMUM: Final = 16


@handles(ops.ExportKey)
class ExportKeyHandler(Handler[ops.ExportKey, ops.WrappedKey]):
    """Wrap a key that was made exportable."""

    speed = Speed.POOLED

    def resolve(
        self, operation: ops.ExportKey, document: KeyDocument | None, /
    ) -> ops.ExportKey:
        """Fill the format by the table."""
        if document is None:
            return operation
        usual = _usual_format(spec(Algorithm(document.algorithm)))
        return msgspec.structs.replace(operation, format=operation.format or usual)

    def prepare(self, context: RequestContext[ops.ExportKey], /) -> None:
        """Check that the key may leave, and that the other may and can wrap it."""
        operation, key = context.operation, context.key
        if not key.exportable:
            raise KeyUsageError("The key is not exportable.", field="key_id")
        version = require_version(key, operation.version, "ExportKey")
        format = check_format(context.spec, operation.format)
        wrapping = context.others["wrapping_key_id"]
        if wrapping.key_id == key.key_id:
            raise InvalidInputError(
                "wrapping_key_id must name another key: a key can't wrap itself.",
                field="wrapping_key_id",
            )
        check_usage(wrapping, KeyUsage.WRAP, field="wrapping_key_id")
        require_version(wrapping, None, "wrap")
        row = spec(Algorithm(wrapping.algorithm))
        mechanism = check_mechanism(
            row, operation.mechanism, operation.hash, operation.mgf_hash
        )
        _check_strength(row, context.spec)
        context.prepared[:] = version, mechanism, format
        self._services.crypto.require(row.algorithm)
        self._services.crypto.require(Algorithm.AES_256_KW)

    def uses(self, context: RequestContext[ops.ExportKey], /) -> Sequence[Use]:
        """Count one wrapping, and note that the exported version was used."""
        wrapping = context.others["wrapping_key_id"]
        return (
            Use(wrapping, wrapping.current_version),
            Use(context.key, context.prepared[0], 0),
        )

    def perform(
        self, context: RequestContext[ops.ExportKey], /
    ) -> Answer[ops.WrappedKey]:
        """Open the material, and wrap it in the form that was asked for."""
        key, services = context.key, self._services
        version, mechanism, format = context.prepared
        materials = services.inventory.materials
        material = materials.open_material(key, version)
        data = shown_form(context.spec.algorithm, format, material)
        _check_block(mechanism, data)
        wrapping = context.others["wrapping_key_id"]
        is_public = spec(Algorithm(wrapping.algorithm)).is_asymmetric
        load = materials.public_handle if is_public else materials.handle
        wrapped = wrap_key(
            services.crypto,
            services.entropy,
            load(wrapping, wrapping.current_version),
            mechanism,
            data,
            _oaep(context.operation),
        )
        return Answer(
            ops.WrappedKey(
                key_id=key.key_id,
                version=version.version,
                algorithm=context.spec.algorithm,
                format=format,
                wrapping_key_id=wrapping.key_id,
                wrapping_version=wrapping.current,
                mechanism=mechanism,
                wrapped=wrapped,
            ),
            version.version,
        )


def required_strength(exported: AlgorithmSpec) -> tuple[int, int]:
    """
    Return the bits and the category that a wrapping key needs at least.

    A stronger wrapping key wraps whatever a weaker one does; and a key that may wrap a
    wrapping key may wrap whatever that one wraps.
    """
    category = 0 if exported.family in _CARRIED else exported.category
    return min(exported.strength_bits, _ENOUGH_BITS), category


def is_as_strong(wrapping: AlgorithmSpec, exported: AlgorithmSpec) -> bool:
    """Return whether a key of one algorithm may wrap a key of another."""
    bits, category = required_strength(exported)
    return wrapping.strength_bits >= bits and wrapping.category >= category


def _check_strength(wrapping: AlgorithmSpec, exported: AlgorithmSpec) -> None:
    if is_as_strong(wrapping, exported):
        return
    bits, category = required_strength(exported)
    raise UnsupportedOperationError(
        f"wrapping_key_id: {wrapping.algorithm} ({wrapping.strength_bits} bits, "
        f"category {wrapping.category}) is too weak to wrap {exported.algorithm}; use "
        f"a key of at least {bits} bits and category {category}.",
        field="wrapping_key_id",
    )


def _check_block(mechanism: WrapMechanism, data: bytes) -> None:
    fits = len(data) >= _KW_MINIMUM and len(data) % _KW_BLOCK == 0
    if mechanism is WrapMechanism.AES_KW and not fits:
        raise UnsupportedOperationError(
            f"mechanism: AES-KW wraps at least {_KW_MINIMUM} bytes, in multiples of "
            f"{_KW_BLOCK}; this key has {len(data)}. Use AES-KWP.",
            field="mechanism",
        )
