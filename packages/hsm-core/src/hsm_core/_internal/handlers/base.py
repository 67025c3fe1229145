# SPDX-License-Identifier: MIT
"""
What a handler is: the part of an operation that is its own.

Order, authority, idempotency, the trail and recovery are the pipeline's business; a
handler says how defaults are filled, what is refused, and what is done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.documents import KeyDocument
from hsm_core._internal.inventory import Inventory
from hsm_core.algorithms import Algorithm, AlgorithmSpec, spec
from hsm_core.errors import PayloadTooLargeError
from hsm_core.model import AuditDetail, Caller
from hsm_core.operations import AuditVerification, Operation
from hsm_core.protocols import AuditLog, Clock, Entropy, PolicyEngine
from hsm_core.settings import AuditSync, Limits

__all__ = [
    "Answer",
    "Handler",
    "MutationHandler",
    "Plan",
    "Services",
    "Subject",
]

Op = TypeVar("Op", bound=Operation[Any])
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """
    What handlers work with.

    Attributes:
        verify_range: Verifies a range of the trail; it knows the audit key.
        started_at: When this HSM was opened, microseconds since 1970.
    """

    inventory: Inventory
    crypto: CryptoRegistry
    policy: PolicyEngine
    audit: AuditLog
    audit_sync: AuditSync
    clock: Clock
    entropy: Entropy
    limits: Limits
    verify_range: Callable[[int, int], AuditVerification]
    started_at: int


@dataclass(frozen=True, slots=True)
class Subject(Generic[Op]):
    """
    A resolved operation: names are ids, aliases standard names, defaults filled.

    Attributes:
        document: The key's document, where the operation names a key that can be read.
        others: Documents of the further keys it names, by field.
    """

    operation: Op
    caller: Caller
    document: KeyDocument | None = None
    others: Mapping[str, KeyDocument] = field(default_factory=dict)

    @property
    def key(self) -> KeyDocument:
        """The document of an operation that can't do without one."""
        if self.document is None:
            raise AssertionError("the pipeline resolves the key before it is used")
        return self.document

    @property
    def spec(self) -> AlgorithmSpec:
        """The row of the key's algorithm."""
        return spec(Algorithm(self.key.algorithm))


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """
    A result, and the key version that made it (0 if none).

    Attributes:
        detail: What the record of it says besides.
    """

    result: R
    version: int = 0
    detail: AuditDetail | None = None


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


class Handler(ABC, Generic[Op, R]):
    """
    Handler of an operation that changes no key.

    Attributes:
        shows_tampered: Whether it still has an answer for a key that was tampered with.
    """

    shows_tampered: ClassVar[bool] = False

    def __init__(self, services: Services) -> None:
        self._services = services

    def resolve(self, operation: Op, document: KeyDocument | None, /) -> Op:
        """Fill the defaults of an operation; the caller is told nothing yet."""
        return operation

    def prepare(self, subject: Subject[Op], /) -> None:
        """Refuse what can't be done: sizes, usage, state."""

    @abstractmethod
    def perform(self, subject: Subject[Op], /) -> Answer[R]:
        """Do it."""

    def is_quick(self, operation: Op, /) -> bool:
        """Whether it takes so little time that an event loop may do it itself."""
        return True

    def _check_size(self, field: str, data: bytes | None, limit: int) -> None:
        if data is not None and len(data) > limit:
            raise PayloadTooLargeError(field, actual=len(data), maximum=limit)


class MutationHandler(ABC, Generic[Op, R]):
    """Handler of an operation that changes one key, in one commit."""

    shows_tampered: ClassVar[bool] = False

    def __init__(self, services: Services) -> None:
        self._services = services

    def resolve(self, operation: Op, document: KeyDocument | None, /) -> Op:
        """Fill the defaults of an operation; the caller is told nothing yet."""
        return operation

    def prepare(self, subject: Subject[Op], /) -> None:
        """Refuse what can't be done: sizes, usage, state."""

    @abstractmethod
    def plan(self, subject: Subject[Op], /) -> Plan:
        """Work out the change; nothing is stored yet."""

    @abstractmethod
    def answer(self, document: KeyDocument, version: int, /) -> R:
        """Build the answer from a committed document, now or for a repeated request."""

    def is_quick(self, operation: Op, /) -> bool:
        """Never: a mutation waits for the disk three times."""
        return False
