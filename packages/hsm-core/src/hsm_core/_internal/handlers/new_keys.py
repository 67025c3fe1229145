# SPDX-License-Identifier: MIT
"""Operations that make a key: what they share, and CreateKey."""

from __future__ import annotations

import uuid
from typing import Final, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.registry import GeneratedKey
from hsm_core._internal.handlers.base import OperationContext, Plan
from hsm_core._internal.handlers.new_versions import KeyMutation
from hsm_core._internal.keyring.documents import DOCUMENT_FORMAT, KeyDocument
from hsm_core._internal.keyring.versions import append_version
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    KeyUsage,
    parse_algorithm,
    spec,
)
from hsm_core.errors import (
    InvalidInputError,
    UnsupportedOperationError,
)
from hsm_core.model import KeyId, KeyOrigin, KeyState

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
    # Whoever may decrypt with a wrapping key could read what was wrapped for the HSM.
    (
        _TRANSPORT,
        _OPENING,
        "wrap and unwrap can't be combined with decrypt or decapsulate",
    ),
)
"""Usages that can't be combined in one key (SP 800-57 part 1, section 5.2)."""


class NewKeyHandler(KeyMutation[NewKey]):
    """Make a key; where its material comes from differs."""

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

    def prepare(self, subject: OperationContext[NewKey], /) -> None:
        """Refuse usages that the algorithm has not, and names that look like ids."""
        operation = subject.operation
        row = spec(Algorithm(operation.algorithm))
        _check_usages(row, operation.usages)
        check_name(operation.name)
        if operation.name:
            self._services.inventory.require_free(operation.name)
        self._services.crypto.require(row.algorithm)

    def _new_key(
        self,
        subject: OperationContext[NewKey],
        made: GeneratedKey,
        origin: KeyOrigin,
        state: KeyState = KeyState.ACTIVE,
    ) -> Plan:
        operation, now = subject.operation, self._services.leaps.now()
        ring = self._services.inventory.ring
        empty = KeyDocument(
            format=DOCUMENT_FORMAT,
            kek_id=ring.kek_id,
            store_id=ring.store_id,
            key_id=KeyId(self._random_uuid()),
            algorithm=operation.algorithm,
            usages=tuple(usage.value for usage in operation.usages),
            created_at=now,
            updated_at=now,
            generation=0,
            current=1,
            versions=(),
            name=operation.name,
            owner=operation.owner or subject.caller.principal,
            description=operation.description,
            tags=operation.tags,
            origin=origin,
            exportable=operation.exportable,
            draft=spec(Algorithm(operation.algorithm)).draft,
        )
        sealed = self._seal_new(empty, made, now, state)
        document = append_version(empty, lambda _: sealed.version, now)
        return Plan(document, 1, {1: sealed.blob})


class CreateKeyHandler(NewKeyHandler[ops.CreateKey]):
    """Make a key from fresh material."""

    def plan(self, subject: OperationContext[ops.CreateKey], /) -> Plan:
        """Generate material, test it, and seal it."""
        operation = subject.operation
        # Usages never change, so what a key is for can be told when it is made.
        made = self._services.crypto.generate(
            Algorithm(operation.algorithm), agrees=KeyUsage.DERIVE in operation.usages
        )
        state = KeyState.STAGED if operation.staged else KeyState.ACTIVE
        return self._new_key(subject, made, KeyOrigin.GENERATED, state)


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
