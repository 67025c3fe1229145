# SPDX-License-Identifier: MIT
"""Handler interfaces, dependencies, and cost classes of operations."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.approvals.workflow import ApprovalWorkflow
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.use_counters import Use, UseAccounts
from hsm_core._internal.lib.cache import RecentEvent
from hsm_core._json import bytes_fields
from hsm_core.algorithms import (
    Algorithm,
    Cost,
    Family,
    KeyUsage,
    parse_algorithm,
    spec,
)
from hsm_core.errors import (
    InvalidInputError,
    PayloadTooLargeError,
    UnknownAlgorithmError,
)
from hsm_core.model import AuditDetail, Caller
from hsm_core.operations import Operation, ScheduleStatus


@dataclass(slots=True)
class Schedule:
    """
    Written by schedulers, read by status queries; each value is replaced.

    Attributes:
        rotating: Number of keys with automatic rotation.
        rotations_due: Number of those that are due and not rotated yet.
        destructions: Number of keys with a scheduled destruction.
        destructions_due: Number of those that are due.
        held: Number of those delayed by a clock jump.
        left_out_seconds: Wall time that does not count, in seconds.
    """

    rotating: int = 0
    rotations_due: int = 0
    destructions: int = 0
    destructions_due: int = 0
    held: int = 0
    left_out_seconds: int = 0

    def status(self) -> ScheduleStatus:
        """Return the values as a status."""
        return ScheduleStatus(
            rotating=self.rotating,
            rotations_due=self.rotations_due,
            destructions=self.destructions,
            destructions_due=self.destructions_due,
            held=self.held,
            left_out_seconds=self.left_out_seconds,
        )


Op = TypeVar("Op", bound=Operation[Any])
R = TypeVar("R")

QUICK_WEIGHT: Final = 1
POOLED_WEIGHT: Final = 4
SLOW_WEIGHT: Final = 50
"""Weights of operations; see `AnyHandler.weight`."""

PUBLIC_USAGES: Final = frozenset(
    {KeyUsage.VERIFY, KeyUsage.ENCRYPT, KeyUsage.ENCAPSULATE}
)
"""Operations with the public key; fast even where the private key is slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerDependencies(Dependencies):
    """
    Dependencies of the handlers.

    Attributes:
        uses: Use counters of the key materials.
        store_status: Returns the state of the key store.
        store_refused: Whether the store rejected a change recently.
        verify_store: Verifies every key, unless the HSM is closed in between.
        recover_store: Accepts the key store as it is, with a reason.
        recover_key: Accepts one key as it is, given its ID and a reason.
        check_ledger_lost: Raises unless a new retention ledger replaces a lost one.
        begin_ledger: Replaces a lost retention ledger with a new one, with a reason.
        consents: Approval workflow.
        approval_status: Returns the state of the approvals.
        started_at: Time at which the HSM was opened, in microseconds since 1970.
        retention_status: Returns the retention report.
        schedule: Results of the schedulers.
        closing: Set when the HSM begins to close; self-tests and store checks end then.
        overdue: Set when the HSM stops waiting for operations; batches end then.
    """

    uses: UseAccounts
    crypto: CryptoRegistry
    store_status: Callable[[], ops.StoreStatus]
    store_refused: RecentEvent
    verify_store: Callable[[threading.Event], ops.StoreVerification]
    back_up: Callable[[], ops.BackUp]
    recover_store: Callable[[str], ops.Recovered]
    recover_key: Callable[[str, str], ops.Recovered]
    check_ledger_lost: Callable[[], None]
    begin_ledger: Callable[[Caller, str], ops.LedgerBegun]
    consents: ApprovalWorkflow
    approval_status: Callable[[], ops.ApprovalStatus]
    started_at: int
    retention_status: Callable[[], ops.RetentionReport]
    schedule: Schedule = field(default_factory=Schedule)
    closing: threading.Event = field(default_factory=threading.Event)
    overdue: threading.Event = field(default_factory=threading.Event)


class Answer(msgspec.Struct, Generic[R], frozen=True):
    """
    A result, and the key version that made it (0 if none).

    Attributes:
        detail: What the record of it says besides.
        source: A further version whose material went into it, or 0.
    """

    result: R
    version: int = 0
    detail: AuditDetail | None = None
    source: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """
    A change of a key that is ready to be committed.

    Attributes:
        document: The new document, without this operation's own record.
        version: The version that the answer is about.
        blobs: Sealed blobs of new versions.
    """

    document: KeyDocument
    version: int
    blobs: Mapping[int, bytes] = field(default_factory=dict)


class AnyHandler(ABC, Generic[Op]):
    """
    Handler of an operation: what uses, views and changes have in common.

    Attributes:
        shows_tampered: Whether it still has an answer for a key that was tampered with.
    """

    shows_tampered: ClassVar[bool] = False

    def __init__(self, services: HandlerDependencies) -> None:
        self._services = services

    def resolve(self, operation: Op, document: KeyDocument | None, /) -> Op:
        """Fill the defaults of an operation, without disclosing anything."""
        return operation

    def prepare(self, context: RequestContext[Op], /) -> None:
        """Refuse what can't be done: sizes, usage, state."""

    def uses(self, context: RequestContext[Op], /) -> Sequence[Use]:
        """Return the key uses to count before the operation is performed."""
        return ()

    @abstractmethod
    def is_quick(self, operation: Op, /) -> bool:
        """Whether it takes so little time that an event loop may do it itself."""

    @abstractmethod
    def is_slow(self, operation: Op, /) -> bool:
        """Whether it takes so long that it has threads of its own."""

    def weight(self, operation: Op, /) -> int:
        """
        Return how many quick operations one is worth.

        A signature by ML-DSA-65 or P-256 is 1; what goes to a pool, as mutations and
        RSA's private keys do, is 4; what has threads of its own is 50.
        """
        if self.is_slow(operation):
            return SLOW_WEIGHT
        return QUICK_WEIGHT if self.is_quick(operation) else POOLED_WEIGHT

    def _algorithm_of(self, operation: Op) -> Algorithm | None:
        """Return the algorithm of the key that an operation names, if it is known."""
        entry = self._services.inventory.entry(getattr(operation, "key_id", ""))
        return Algorithm(entry.algorithm) if entry and entry.algorithm else None

    def _check_size(self, field: str, data: bytes | None, limit: int) -> None:
        if data is not None and len(data) > limit:
            raise PayloadTooLargeError(field, actual=len(data), maximum=limit)


class Handler(AnyHandler[Op], Generic[Op, R]):
    """Handler of an operation that changes no key."""

    @abstractmethod
    def perform(self, context: RequestContext[Op], /) -> Answer[R]:
        """Do it."""

    def is_quick(self, operation: Op, /) -> bool:
        """Whether it uses no key, or one in memory with a short payload."""
        if operation.usage is None:
            return True
        key_id: str = getattr(operation, "key_id", "")
        payload = (getattr(operation, name) for name in bytes_fields(type(operation)))
        size = sum(len(data) for data in payload if isinstance(data, bytes))
        private = operation.usage not in PUBLIC_USAGES
        return is_quick_use(self._services.inventory, key_id, size, private=private)

    def is_slow(self, operation: Op, /) -> bool:
        """Whether its algorithm is slow with the private key, or not tested yet."""
        if operation.usage is None:
            return False
        algorithm = self._algorithm_of(operation)
        if algorithm is None:
            return False
        if not self._services.crypto.is_ready(algorithm):
            return True
        is_public = operation.usage in PUBLIC_USAGES
        return spec(algorithm).use_cost is Cost.SLOW and not is_public


class ProtectingHandler(Handler[Op, R]):
    """Handler of an operation that protects data: one use of the current version."""

    @abstractmethod
    def protected_bytes(self, operation: Op, /) -> int:
        """Return the number of bytes that the operation protects."""

    def uses(self, context: RequestContext[Op], /) -> Sequence[Use]:
        """Return one use of the current version."""
        key, size = context.key, self.protected_bytes(context.operation)
        return (Use(key, key.current_version, 1, size),)


class MutationHandler(AnyHandler[Op], Generic[Op, R]):
    """Handler of an operation that changes one key, in one commit."""

    @abstractmethod
    def plan(self, context: RequestContext[Op], /) -> Plan:
        """Work out the change; nothing is stored yet."""

    @abstractmethod
    def answer(self, document: KeyDocument, version: int, /) -> R:
        """Build the answer from a committed document, now or for a repeated request."""

    def is_quick(self, operation: Op, /) -> bool:
        """Never: a mutation waits for the disk three times."""
        return False

    def is_slow(self, operation: Op, /) -> bool:
        """Whether it makes a key of an algorithm that is slow in this, or untested."""
        algorithm = self.made_algorithm(operation)
        if algorithm is None:
            return False
        is_slow = spec(algorithm).generate_cost is Cost.SLOW
        return is_slow or not self._services.crypto.is_ready(algorithm)

    def made_algorithm(self, operation: Op, /) -> Algorithm | None:
        """Return the algorithm of the material that it makes; None if it makes none."""
        return None


def named_algorithm(name: str) -> Algorithm | None:
    """Return an algorithm by one of its names, or None."""
    try:
        return parse_algorithm(name)
    except UnknownAlgorithmError:
        return None


HandlerT = TypeVar("HandlerT", bound=AnyHandler[Any])
HANDLERS: Final[dict[type[Operation[Any]], type[AnyHandler[Any]]]] = {}
"""Handler of each operation; filled by `handles`."""


def handles(
    operation: type[Operation[Any]],
) -> Callable[[type[HandlerT]], type[HandlerT]]:
    """Register the decorated class as the handler of an operation."""

    def register(cls: type[HandlerT]) -> type[HandlerT]:
        if operation in HANDLERS:
            raise AssertionError(f"{operation.__name__} has a handler already")
        HANDLERS[operation] = cls
        return cls

    return register


def check_known(name: str, known: Collection[str], /, *, field: str) -> None:
    """
    Check the name of an operation or of a kind of record in a request.

    Args:
        name: The name.

        known: All names that there are.

        field: The field that holds *name*.

    Raises:
        InvalidInputError: It is not one of them; the message proposes similar ones.
    """
    if name in known:
        return
    spelt = {each.lower(): each for each in sorted(known)}
    near = [spelt[found] for found in get_close_matches(name.lower(), spelt)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InvalidInputError(f"There is no {field} {name!r}.{hint}", field=field)


INLINE_BYTES: Final = 64 * 1024
"""Maximum payload processed in one step, in bytes."""


def is_quick_use(
    inventory: KeyRepository, key_id: str, size: int, *, private: bool
) -> bool:
    """
    Return whether a use of a key is sure to end soon.

    Args:
        inventory: Where the key is looked for, in memory alone.

        key_id: Id or name of the key; if it isn't known, reading it takes time.

        size: Length of the payload in bytes.

        private: Whether the private half of the key computes.
    """
    document = inventory.known(key_id)
    if document is None or size > INLINE_BYTES:
        return False
    return not private or _is_quick(document)


def _is_quick(document: KeyDocument) -> bool:
    row = spec(Algorithm(document.algorithm))
    return row.use_cost is Cost.QUICK and row.family is not Family.RSA
