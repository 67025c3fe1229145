# SPDX-License-Identifier: MIT
"""CreateKey, DeriveKey, and sealed material of new key versions."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.pyca.symmetric import HKDF_ALGORITHMS, hkdf, x963
from hsm_core._internal.crypto.registry import GeneratedKey
from hsm_core._internal.handlers.base import (
    MutationHandler,
    Plan,
    handles,
    named_algorithm,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import (
    DOCUMENT_FORMAT,
    KeyDocument,
    VersionDocument,
    key_info,
    made_key_id,
)
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.use_counters import Use
from hsm_core._internal.keyring.versions import (
    append_version,
    check_usage,
    require_version,
)
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    DerivationFunction,
    Family,
    HashAlgorithm,
    KeyUsage,
    parse_algorithm,
    spec,
)
from hsm_core.errors import InvalidInputError, KeyUsageError, UnsupportedOperationError
from hsm_core.model import KeyInfo, KeyOrigin, KeyState

Op = TypeVar("Op", bound=ops.Operation[Any])


class KeyMutation(MutationHandler[Op, KeyInfo]):
    """A mutation that answers with the key's facts, and may bring new material."""

    def answer(self, document: KeyDocument, version: int, /) -> KeyInfo:
        """Return the key, with the version that the operation was about."""
        integrity = self._services.inventory.integrity(document.key_id)
        return key_info(document, integrity, version=version)

    def _fresh(self, document: KeyDocument, now: int, state: KeyState) -> SealedVersion:
        made = self._services.crypto.generate(
            Algorithm(document.algorithm),
            agrees=KeyUsage.DERIVE.value in document.usages,
        )
        return self._seal_new(document, made, now, state)

    def _seal_new(
        self, document: KeyDocument, made: GeneratedKey, now: int, state: KeyState
    ) -> SealedVersion:
        return seal_version(
            self._services.inventory,
            document,
            made.material,
            public_der=made.public_der,
            material_id=self._random_uuid(),
            rolled_back_from=0,
            now=now,
            state=state,
        )

    def _random_uuid(self) -> str:
        octets = self._services.entropy.random_bytes(16)
        return str(uuid.UUID(bytes=octets, version=4))


NewKey = TypeVar("NewKey", ops.CreateKey, ops.ImportKey, ops.DeriveKey)

_SIGNING: Final = frozenset({KeyUsage.SIGN, KeyUsage.VERIFY})
_TRANSPORT: Final = frozenset({KeyUsage.WRAP, KeyUsage.UNWRAP})
_OPENING: Final = frozenset({KeyUsage.DECRYPT, KeyUsage.DECAPSULATE})
_PURPOSES: Final = (
    (
        _SIGNING,
        frozenset(KeyUsage) - _SIGNING,
        "sign and verify can't be combined with encryption, wrapping or derivation",
    ),
    # To decrypt with a wrapping key would be to read what was wrapped for the HSM.
    (
        _TRANSPORT,
        _OPENING,
        "wrap and unwrap can't be combined with decrypt or decapsulate",
    ),
)
"""Usages that can't be combined in one key (SP 800-57 part 1, section 5.2)."""


class NewKeyHandler(KeyMutation[NewKey]):
    """Make a key; where its material comes from differs."""

    def made_algorithm(self, operation: NewKey, /) -> Algorithm | None:
        """Return the new key's algorithm, if there is one of this name."""
        return named_algorithm(operation.algorithm)

    def resolve(self, operation: NewKey, document: KeyDocument | None, /) -> NewKey:
        """Fill algorithm and usages by the table."""
        algorithm = parse_algorithm(operation.algorithm)
        usages = operation.usages or tuple(spec(algorithm).default_usages)
        return msgspec.structs.replace(
            operation,
            algorithm=algorithm.value,
            usages=tuple(sorted(set(usages))),
            tags=tuple(sorted(set(operation.tags))),
        )

    def prepare(self, context: RequestContext[NewKey], /) -> None:
        """Refuse usages that the algorithm has not, and names that look like ids."""
        operation = context.operation
        row = spec(Algorithm(operation.algorithm))
        _check_usages(row, operation.usages)
        check_name(operation.name)
        if operation.name:
            self._services.inventory.require_free(operation.name)
        self._services.crypto.require(row.algorithm)

    def _new_key(
        self,
        context: RequestContext[NewKey],
        made: GeneratedKey,
        origin: KeyOrigin,
        state: KeyState = KeyState.ACTIVE,
    ) -> Plan:
        operation, now = context.operation, self._services.clock_guard.now()
        ring = self._services.inventory.ring
        empty = KeyDocument(
            format=DOCUMENT_FORMAT,
            kek_id=ring.kek_id,
            store_id=ring.store_id,
            key_id=made_key_id(context.operation_id),
            algorithm=operation.algorithm,
            usages=tuple(usage.value for usage in operation.usages),
            created_at=now,
            updated_at=now,
            generation=0,
            current=1,
            versions=(),
            name=operation.name,
            owner=operation.owner or context.caller.principal,
            description=operation.description,
            tags=operation.tags,
            origin=origin,
            exportable=operation.exportable,
            draft=spec(Algorithm(operation.algorithm)).draft,
        )
        sealed = self._seal_new(empty, made, now, state)
        document = append_version(empty, lambda _: sealed.version, now)
        return Plan(document, 1, {1: sealed.blob})


@handles(ops.CreateKey)
class CreateKeyHandler(NewKeyHandler[ops.CreateKey]):
    """Make a key from fresh material."""

    def plan(self, context: RequestContext[ops.CreateKey], /) -> Plan:
        """Generate material, test it, and seal it."""
        operation = context.operation
        # Usages never change, so what a key is for can be told when it is made.
        made = self._services.crypto.generate(
            Algorithm(operation.algorithm), agrees=KeyUsage.DERIVE in operation.usages
        )
        state = KeyState.STAGED if operation.staged else KeyState.ACTIVE
        return self._new_key(context, made, KeyOrigin.GENERATED, state)


def check_name(name: str) -> None:
    """
    Check that a name can't be taken for an id.

    Raises:
        InvalidInputError: It has the form of a UUID.
    """
    if _is_uuid(name):
        raise InvalidInputError("name must not look like a UUID.", field="name")


def _check_usages(row: AlgorithmSpec, usages: tuple[KeyUsage, ...]) -> None:
    for usage in usages:
        if usage not in row.usages:
            raise UnsupportedOperationError(
                f"usages: {row.algorithm} does not support {usage}; it supports "
                f"{', '.join(sorted(row.usages))}.",
                field="usages",
            )
    for one, other, rule in _PURPOSES:
        if one.intersection(usages) and other.intersection(usages):
            raise InvalidInputError(
                f"usages: {rule} (SP 800-57 part 1, section 5.2). Create one key for "
                "each purpose.",
                field="usages",
            )


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


@handles(ops.DeriveKey)
class DeriveKeyHandler(NewKeyHandler[ops.DeriveKey]):
    """Derive from an HKDF key, or from what ECDH agrees on."""

    def prepare(self, context: RequestContext[ops.DeriveKey], /) -> None:
        """Check the new key's facts, and that the base key may and can derive it."""
        super().prepare(context)
        operation = context.operation
        row = spec(Algorithm(operation.algorithm))
        if row.is_asymmetric:
            raise UnsupportedOperationError(
                f"algorithm must be symmetric for a derived key, got {row.algorithm}.",
                field="algorithm",
            )
        base = context.others["base_key_id"]
        check_usage(base, KeyUsage.DERIVE, field="base_key_id")
        require_version(base, None, "derive")
        if operation.exportable and not base.exportable:
            raise KeyUsageError(
                "exportable must be false: the base key is not exportable.",
                field="exportable",
            )
        base_row = spec(Algorithm(base.algorithm))
        _check_parameters(operation, base_row)
        _check_function(operation, row, base_row)
        self._services.crypto.require(base_row.algorithm)
        self._services.crypto.require(HKDF_ALGORITHMS[_hash(operation, base_row)])

    def uses(self, context: RequestContext[ops.DeriveKey], /) -> Sequence[Use]:
        """Count one derivation of the base key."""
        base = context.others["base_key_id"]
        return (Use(base, base.current_version),)

    def plan(self, context: RequestContext[ops.DeriveKey], /) -> Plan:
        """Derive, test and seal."""
        algorithm = Algorithm(context.operation.algorithm)
        material = self._derive(context, spec(algorithm).key_bytes)
        made = self._services.crypto.adopt(algorithm, material)
        return self._new_key(context, made, KeyOrigin.DERIVED)

    def _derive(self, context: RequestContext[ops.DeriveKey], length: int) -> bytes:
        operation, base = context.operation, context.others["base_key_id"]
        handle = self._services.inventory.materials.handle(base, base.current_version)
        if operation.peer_public_key is None:
            return handle.derive(operation.salt, operation.info, length)
        secret = handle.agree(operation.peer_public_key)
        if operation.function is DerivationFunction.NONE:
            return secret[-length:]
        hash = _hash(operation, spec(Algorithm(base.algorithm)))
        if operation.function is DerivationFunction.X963:
            return x963(hash, secret, info=operation.info, length=length)
        return hkdf(
            hash, secret, salt=operation.salt, info=operation.info, length=length
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


def _check_function(
    operation: ops.DeriveKey, made: AlgorithmSpec, base: AlgorithmSpec
) -> None:
    function = operation.function
    if function in {None, DerivationFunction.HKDF}:
        return
    if base.family is Family.KDF:
        raise UnsupportedOperationError(
            f"function: {base.algorithm} keys derive by HKDF only.", field="function"
        )
    if operation.salt:
        raise InvalidInputError(
            f"salt must be omitted with function {function}.", field="salt"
        )
    if function is not DerivationFunction.NONE:
        return
    if operation.info:
        raise InvalidInputError(
            "info must be omitted with function none.", field="info"
        )
    if operation.hash is not None:
        raise InvalidInputError(
            "hash must be omitted with function none.", field="hash"
        )
    if made.key_bytes > base.shared_secret_bytes:
        raise UnsupportedOperationError(
            f"algorithm: {made.algorithm} keys have {made.key_bytes} bytes, but the "
            f"shared secret of {base.algorithm} has {base.shared_secret_bytes}. Use a "
            "shorter key, or another function.",
            field="algorithm",
        )


def _hash(operation: ops.DeriveKey, base: AlgorithmSpec) -> HashAlgorithm:
    if base.family is Family.KDF:
        return base.hashes[0]
    return operation.hash or HashAlgorithm.SHA_256


class SealedVersion(msgspec.Struct, frozen=True):
    """A version and its blob."""

    version: VersionDocument
    blob: bytes


def seal_version(
    inventory: KeyRepository,
    document: KeyDocument,
    material: bytes,
    *,
    public_der: bytes,
    material_id: str,
    rolled_back_from: int,
    now: int,
    state: KeyState = KeyState.ACTIVE,
) -> SealedVersion:
    """Seal *material* as the next version of a key, by default active at once."""
    version = VersionDocument(
        version=len(document.versions) + 1,
        material_id=material_id,
        state=state,
        created_at=now,
        state_changed_at=now,
        public_der=public_der,
        rolled_back_from=rolled_back_from,
    )
    blob = inventory.materials.seal(document, version, material)
    digest = hashlib.sha256(blob).hexdigest()
    return SealedVersion(msgspec.structs.replace(version, blob_sha256=digest), blob)
