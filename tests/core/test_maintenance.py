# SPDX-License-Identifier: MIT
"""What an HSM does from time to time: retention of trail and approvals, healing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import structs

from hsm_core._internal.background.maintenance import PeriodicMaintenance
from hsm_core._internal.stores.filesystem.stores import FileApprovalStore
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core.errors import ApprovalRequiredError, StoreLockedError
from hsm_core.model import Phase
from hsm_core.operations import CreateKey, Status
from hsm_core.protocols import ApprovalStore, AuditDraft, AuditLog
from hsm_core.settings import (
    APPROVAL_DAYS,
    TRAIL_DAYS,
    ApprovalStoreKind,
    AuditStoreKind,
    PolicyProfile,
    Settings,
)
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.self_tests import open_tested

DAY = 24 * 3600.0


@contextmanager
def keeping(
    clock: FakeClock,
    settings: Settings,
    approvals: ApprovalStore | None = None,
) -> Iterator[tuple[PeriodicMaintenance, AuditLog]]:
    """Return the maintenance of an HSM, whose own times never come during a test."""
    with memory_hsm(clock=clock, settings=settings, approvals=approvals) as gateway:
        services = gateway._services  # noqa: SLF001 (knows the trail)
        yield gateway._maintenance, services.audit  # noqa: SLF001 (is the subject)


def record(audit: AuditLog) -> None:
    """Append one record."""
    audit.append([AuditDraft(phase=Phase.SINGLE, kind="test")]).wait()


class TestDefaults:
    def test_on_files(self) -> None:
        """On files nothing is removed unless somebody says so."""
        settings = Settings(approval_store=ApprovalStoreKind.FILE)

        assert (0, 0) == (settings.trail_days, settings.approval_days)

    def test_on_databases(self) -> None:
        """In databases the original's times hold."""
        settings = Settings(
            audit_store=AuditStoreKind.SQLITE, approval_store=ApprovalStoreKind.SQLITE
        )

        assert (365, 90) == (TRAIL_DAYS, APPROVAL_DAYS)
        assert (TRAIL_DAYS, APPROVAL_DAYS) == (
            settings.trail_days,
            settings.approval_days,
        )

    def test_what_is_said_goes_first(self) -> None:
        """Any number of days, and 0 for ever, on any kind."""
        settings = Settings(
            audit_store=AuditStoreKind.SQLITE,
            audit_retention_days=0,
            approval_retention_days=7,
        )

        assert (0, 7) == (settings.trail_days, settings.approval_days)


class TestTrail:
    def test_old_records_go(self) -> None:
        """Records older than the limit are gone, and the trail says so."""
        clock = FakeClock()
        settings = Settings(audit_retention_days=10)
        with keeping(clock, settings) as (house, audit):
            for _ in range(20):
                record(audit)
                clock.advance(DAY)
            house.prune_trail()

            assert 0 < audit.first_seq < 12
            assert b'"kind":"system.prune"' in audit.lines(audit.head().seq, 1)[0]

    def test_approvals_are_said_again(self) -> None:
        """Before records go, the trail says once more how each approval is."""
        clock = FakeClock()
        settings = Settings(
            audit_retention_days=10, policy_profile=PolicyProfile.STRICT
        )
        create = CreateKey(algorithm="ML-KEM-768")
        with memory_hsm(clock=clock, settings=settings) as gateway:
            with pytest.raises(ApprovalRequiredError) as caught:
                gateway.act_as(caller()).execute(create)
            audit = gateway._services.audit  # noqa: SLF001 (the trail itself)
            for _ in range(20):
                record(audit)
                clock.advance(DAY)
            gateway._maintenance.prune_trail()  # noqa: SLF001 (as it does in time)
            first, head = audit.first_seq, audit.head().seq
            told = b"".join(audit.lines(first, head - first + 1))

        assert first > 0
        anchored = b'"kind":"system.approval-anchored"'
        assert 1 == told.count(anchored)
        assert str(caught.value.facts["approval_id"]).encode() in told
        assert told.index(anchored) < told.index(b'"kind":"system.prune"')

    def test_kept_for_ever(self) -> None:
        """With 0 days nothing is removed, however old."""
        clock = FakeClock()
        settings = Settings(audit_retention_days=0)
        with keeping(clock, settings) as (house, audit):
            record(audit)
            clock.advance(10_000 * DAY)
            record(audit)
            house.prune_trail()

            assert 0 == audit.first_seq


class Failing(MemoryApprovalStore):
    """A store of approvals whose write has failed."""

    def __init__(self) -> None:
        super().__init__()
        self.reopened = 0

    @property
    def available(self) -> bool:
        """Whether it was opened again."""
        return bool(self.reopened)

    def reopen(self) -> None:
        """Note it."""
        self.reopened += 1


def test_approvals_heal() -> None:
    """A store whose write failed is opened again, once."""
    clock, store = FakeClock(), Failing()
    with keeping(clock, Settings(), store) as (house, _):
        house.heal_approvals()
        house.heal_approvals()

    assert 1 == store.reopened


@pytest.mark.parametrize("kind", [ApprovalStoreKind.FILE, ApprovalStoreKind.SQLITE])
def test_approvals_belong_to_one_hsm(tmp_path: Path, kind: ApprovalStoreKind) -> None:
    """They are locked while the HSM is open, and free after it."""
    settings = Settings(
        key_dir=tmp_path / "keys",
        audit_log=tmp_path / "audit.log",
        approval_store=kind,
        approval_dir=tmp_path / "approvals",
        approval_sqlite_path=tmp_path / "approvals.sqlite",
    )
    other = structs.replace(
        settings, key_dir=tmp_path / "k2", audit_log=tmp_path / "a2.log"
    )
    with open_tested(settings) as gateway:
        gateway.act_as(caller()).execute(CreateKey(algorithm="Ed25519"))
        with pytest.raises(StoreLockedError):
            open_tested(other)
    with open_tested(settings) as gateway:
        assert "operational" == gateway.act_as(caller()).execute(Status()).state
    if kind is ApprovalStoreKind.FILE:
        FileApprovalStore(tmp_path / "approvals").close()
