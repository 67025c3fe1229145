# SPDX-License-Identifier: MIT
"""Approvals to test with, and the stores that they can lie in."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hsm_core._internal.approvals import states
from hsm_core._internal.approvals.records import encode_approval, entry_of
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.lib.encoding import mac_function
from hsm_core._internal.stores.filesystem.stores import FileApprovalStore
from hsm_core._internal.stores.guard import guarded
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core._internal.stores.postgresql.records import ClusterApprovalStore
from hsm_core._internal.stores.sqlite.records import SqliteApprovalStore
from hsm_core.model import Approval, ApprovalDemand, ApprovalState, Caller
from hsm_core.protocols import ApprovalChange, ApprovalStore
from hsm_core.testing import FakeClock
from tests.core.cluster_support import database_of

MAC = mac_function(b"a key for the MACs of approvals.")
START = 1_750_000_000_000_000
"""The instant at which `FakeClock` begins."""


@dataclass(frozen=True)
class ApprovalRow:
    """
    One implementation.

    Attributes:
        open: Opens the store of a folder; again, after the first was closed.
    """

    name: str
    open: Callable[[Path], ApprovalStore]
    durable: bool = True

    def __str__(self) -> str:
        return self.name


def _sqlite(folder: Path) -> ApprovalStore:
    return SqliteApprovalStore(folder / "sqlite" / "approvals.sqlite")


class _AloneInDatabase(ClusterApprovalStore):
    def close(self) -> None:
        """Close the database too, which nobody else has."""
        super().close()
        self.database.close()


def _postgresql(folder: Path) -> ApprovalStore:
    return _AloneInDatabase(database_of(folder))


def _filesystem(folder: Path) -> ApprovalStore:
    return FileApprovalStore(folder / "approvals")


ROWS = [
    ApprovalRow("memory", lambda folder: MemoryApprovalStore(), durable=False),
    ApprovalRow("filesystem", _filesystem),
    ApprovalRow("sqlite", _sqlite),
    ApprovalRow("postgresql", _postgresql),
    ApprovalRow("guarded", lambda folder: guarded(_filesystem(folder))),
]

DURABLE = [row for row in ROWS if row.durable]

EXCLUSIVE = [row for row in DURABLE if row.name != "postgresql"]
"""Rows that one process has for itself."""


def approval_id_of(number: int) -> str:
    """Return the id of the n-th approval."""
    return str(uuid.UUID(int=number, version=4))


def digest_of(number: int) -> str:
    """Return the digest of the n-th operation."""
    return f"{number:064x}"


def person(name: str) -> Caller:
    """Return a caller of this name."""
    return Caller(principal=name, roles=frozenset(), credential_id=f"token-{name}")


def approval_of(number: int, **facts: object) -> Approval:
    """Return the n-th approval, made n seconds after the start, by ann."""
    usual: dict[str, object] = {
        "approval_id": approval_id_of(number),
        "generation": 1,
        "state": ApprovalState.PENDING,
        "kind": "DestroyKey",
        "digest": digest_of(number),
        "requester": "ann",
        "demands": (ApprovalDemand(rule="two-people"),),
        "created_at": START + number * 1_000_000,
        "expires_at": START + 3600 * 1_000_000,
    }
    return Approval(**usual | facts)  # type: ignore[arg-type]


def change_of(approval: Approval) -> ApprovalChange:
    """Return the change that brings an approval about."""
    return ApprovalChange(
        entry_of(approval), encode_approval(approval, MAC), approval.generation - 1
    )


class Register(ApprovalRegister):
    """A register, and the steps that the approval workflow makes on it."""

    def ask(
        self, number: int, *, seconds: int = 3600, quorum: int = 1, **facts: object
    ) -> Approval:
        """Let ann ask for the n-th approval, for an hour, by one person."""
        now = self.time.now()
        usual: dict[str, object] = {
            "demands": (ApprovalDemand(rule="two-people", quorum=quorum),),
            "created_at": now,
            "expires_at": now + seconds * 1_000_000,
        }
        return self.insert(approval_of(number, **usual | facts))

    def reserve(
        self, approval_id: str, *, operation_id: str, digest: str, requester: str
    ) -> Approval:
        """Reserve a granted approval for one operation."""
        return self.change(
            approval_id,
            lambda found, now: states.reserved(found, operation_id, digest, requester),
        )

    def release(self, approval_id: str, *, operation_id: str) -> Approval:
        """Release a reserved approval unused."""
        return self.change(
            approval_id, lambda found, now: states.released(found, operation_id)
        )

    def consume(self, approval_id: str, *, operation_id: str) -> Approval:
        """Consume a reserved approval."""
        return self.change(
            approval_id, lambda found, now: states.consumed(found, operation_id, now)
        )

    def cancel(self, approval_id: str, *, requester: str) -> Approval:
        """Cancel an approval."""
        return self.change(
            approval_id, lambda found, now: states.cancelled(found, requester, now)
        )


def register_of(
    store: ApprovalStore, clock: FakeClock | None = None, *, floor: int = 0
) -> Register:
    """Return a register over a store."""
    return Register(store, MAC, clock or FakeClock(), floor=floor)
