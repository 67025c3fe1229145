# SPDX-License-Identifier: MIT
"""Handler interfaces, dependencies, and cost classes of operations."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from enum import IntEnum
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.approvals.workflow import ApprovalWorkflow
from hsm_core._internal.audit.reading import LogCatalog
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.use_counters import Use, UseAccounts
from hsm_core._internal.keyring.versions import check_usage, require_version
from hsm_core._internal.lib.cache import RecentEvent
from hsm_core._json import bytes_fields
from hsm_core.algorithms import Algorithm, Cost, Family, KeyUsage, parse_algorithm, spec
from hsm_core.errors import (
    InvalidInputError,
    PayloadTooLargeError,
    UnknownAlgorithmError,
)
from hsm_core.model import AuditDetail, Caller
from hsm_core.operations import Operation, ScheduleStatus


class Schedule(msgspec.Struct):
    """
    Results of the schedulers, which write them; status queries read them.

    Attributes:
        status: Replaced as a whole.
    """

    status: ScheduleStatus = msgspec.field(default_factory=ScheduleStatus)

    def note(self, **facts: int) -> None:
        """Replace fields of the status."""
        self.status = msgspec.structs.replace(self.status, **facts)


Op = TypeVar("Op", bound=Operation[Any])
R = TypeVar("R")


class Speed(IntEnum):
    """
    Where an operation runs, as its weight: how many quick operations one is worth.

    Quick ones, such as a signature with P-256, run on an event loop itself; those that
    wait for the disk or take milliseconds run on a pool; slow ones have threads of
    their own.
    """

    QUICK = 1
    POOLED = 4
    SLOW = 50


PUBLIC_USAGES: Final = frozenset(
    {KeyUsage.VERIFY, KeyUsage.ENCRYPT, KeyUsage.ENCAPSULATE}
)
"""Operations with the public key; fast even where the private key is slow."""


class ClusterOperations(Protocol):
    """Cluster that this HSM is a node of."""

    def status(self) -> ops.ClusterStatus:
        """Return the state of the cluster, from memory."""
        ...

    def nodes(self) -> ops.NodeList:
        """
        Return all nodes.

        Raises:
            StoreUnavailableError: The database can't be read.
        """
        ...

    def retire(self, node: str, /) -> None:
        """
        Remove a stopped node from the list of nodes.

        Raises:
            InvalidInputError: There is no such node, or it is not stopped.
            StoreUnavailableError: The database can't be written.
        """
        ...


class HandlerDependencies(Dependencies, frozen=True, kw_only=True):
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
        cluster: Cluster of this node; None for a single machine.
        logs: Audit logs of the cluster; None for a single machine.
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
    schedule: Schedule = msgspec.field(default_factory=Schedule)
    closing: threading.Event = msgspec.field(default_factory=threading.Event)
    overdue: threading.Event = msgspec.field(default_factory=threading.Event)
    cluster: ClusterOperations | None = None
    logs: LogCatalog | None = None


class Answer(msgspec.Struct, Generic[R], frozen=True):
    """
    A result, and the key version that made it (0 if none).

    Attributes:
        detail: What the record of it says besides.
        source: A further version whose material went into it, or 0.
        bound: What stands for the payload in the audit log: the signature, the MAC, or
            parts of the ciphertext; empty for none.
    """

    result: R
    version: int = 0
    detail: AuditDetail | None = None
    source: int = 0
    bound: bytes = b""


class Plan(msgspec.Struct, frozen=True):
    """
    A change of a key that is ready to be committed.

    Attributes:
        document: The new document, without this operation's own record.
        version: The version that the answer is about.
        blobs: Sealed blobs of new versions.
    """

    document: KeyDocument
    version: int
    blobs: Mapping[int, bytes] = msgspec.field(default_factory=dict)


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
    def speed_of(self, operation: Op, /) -> Speed:
        """Return where an operation runs; nothing but memory is looked at."""

    def weight(self, operation: Op, /) -> int:
        """Return how many quick operations one is worth."""
        return self.speed_of(operation)

    def payload_bytes(self, operation: Op, /) -> int:
        """Return the length of all byte strings of an operation."""
        payload = (getattr(operation, name) for name in bytes_fields(type(operation)))
        return sum(len(data) for data in payload if isinstance(data, bytes))

    def _algorithm_of(self, operation: Op) -> Algorithm | None:
        """Return the algorithm of the key that an operation names, if it is known."""
        inventory = self._services.inventory
        reference = getattr(operation, "key_id", "")
        if inventory.feed is not None:  # The index is in the database of a cluster.
            document = inventory.known(reference)
            return Algorithm(document.algorithm) if document else None
        entry = inventory.entry(reference)
        return Algorithm(entry.algorithm) if entry and entry.algorithm else None


class Handler(AnyHandler[Op], Generic[Op, R]):
    """
    Handler of an operation that changes no key.

    Attributes:
        speed: Where it runs, unless it uses a key.
    """

    speed: ClassVar[Speed] = Speed.QUICK

    @abstractmethod
    def perform(self, context: RequestContext[Op], /) -> Answer[R]:
        """Do it."""

    def speed_of(self, operation: Op, /) -> Speed:
        """Return *speed*, or what a use of the key takes."""
        if operation.usage is None:
            return self.speed
        if self._is_slow_use(operation):
            return Speed.SLOW
        return self._speed_of_use(operation, self.payload_bytes(operation))

    def _is_slow_use(self, operation: Op) -> bool:
        """Whether the algorithm is slow with the private key, or not tested yet."""
        algorithm = self._algorithm_of(operation)
        if algorithm is None:
            return False
        if not self._services.crypto.is_ready(algorithm):
            return True
        is_public = operation.usage in PUBLIC_USAGES
        return spec(algorithm).use_cost is Cost.SLOW and not is_public

    def _speed_of_use(self, operation: Op, size: int) -> Speed:
        """Return whether a use is sure to end soon: of a known key, and short."""
        document = self._services.inventory.known(getattr(operation, "key_id", ""))
        if document is None or size > INLINE_BYTES:
            return Speed.POOLED
        row = spec(Algorithm(document.algorithm))
        is_quick = row.use_cost is Cost.QUICK and row.family is not Family.RSA
        is_public = operation.usage in PUBLIC_USAGES
        return Speed.QUICK if is_quick or is_public else Speed.POOLED


class UseHandler(Handler[Op, R]):
    """
    Handler of an operation that uses the material of its key.

    Attributes:
        protects: Fields with the data that one use of the current version protects, or
            with its length; none where nothing is protected.
        current_for: Operation that the current version must permit; empty where it is
            not the one that is used.
    """

    protects: ClassVar[tuple[str, ...]] = ()
    current_for: ClassVar[str] = ""

    def prepare(self, context: RequestContext[Op], /) -> None:
        """Check sizes, usage, state of the current version, and parameters."""
        operation, key = context.operation, context.key
        limits = self._services.settings.limits
        for name in bytes_fields(type(operation)):
            data = getattr(operation, name)
            limit = limits.aad_bytes if name == "aad" else limits.payload_bytes
            # A ciphertext is longer than its payload, and was checked before.
            if data is not None and name != "ciphertext" and len(data) > limit:
                raise PayloadTooLargeError(name, actual=len(data), maximum=limit)
        check_usage(key, operation.usage)
        if self.current_for:
            require_version(key, None, self.current_for)
        self.check(context)
        self._services.crypto.require(Algorithm(key.algorithm))

    def check(self, context: RequestContext[Op], /) -> None:
        """Check what the algorithm allows."""

    def uses(self, context: RequestContext[Op], /) -> Sequence[Use]:
        """Return one use of the current version, if it protects something."""
        if not self.protects:
            return ()
        key, size = context.key, 0
        for name in self.protects:
            data: bytes | int | None = getattr(context.operation, name)
            size += data if isinstance(data, int) else len(data or b"")
        return (Use(key, key.current_version, 1, size),)


class MutationHandler(AnyHandler[Op], Generic[Op, R]):
    """Handler of an operation that changes one key, in one commit."""

    @abstractmethod
    def plan(self, context: RequestContext[Op], /) -> Plan:
        """Work out the change; nothing is stored yet."""

    @abstractmethod
    def answer(self, document: KeyDocument, version: int, /) -> R:
        """Build the answer from a committed document, now or for a repeated request."""

    def speed_of(self, operation: Op, /) -> Speed:
        """Return whether it makes a key of an algorithm that is slow, or untested."""
        algorithm = self.made_algorithm(operation)
        if algorithm is None:
            return Speed.POOLED
        is_slow = spec(algorithm).generate_cost is Cost.SLOW
        is_slow = is_slow or not self._services.crypto.is_ready(algorithm)
        return Speed.SLOW if is_slow else Speed.POOLED

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


class FunctionHandler(Handler[Any, Any]):
    """Handler of an operation that is one function, and needs no preparation."""

    work: ClassVar[Callable[[HandlerDependencies, RequestContext[Any]], Any]]

    def perform(self, context: RequestContext[Any], /) -> Answer[Any]:
        """Call the function."""
        return Answer(type(self).work(self._services, context))


Work = TypeVar("Work", bound=Callable[[HandlerDependencies, RequestContext[Any]], Any])


def answers(
    operation: type[Operation[Any]], speed: Speed = Speed.QUICK
) -> Callable[[Work], Work]:
    """Let the decorated function answer an operation."""

    def register(work: Work) -> Work:
        members = {"work": staticmethod(work), "speed": speed}
        name = f"{operation.__name__}Handler"
        handles(operation)(type(name, (FunctionHandler,), members))
        return work

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
