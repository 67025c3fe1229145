# SPDX-License-Identifier: MIT
"""Periodic maintenance: retention of trail and approvals, healing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from hsm_core._internal.approvals.maintenance import prune_approvals
from hsm_core._internal.background.maintenance import PeriodicMaintenance
from hsm_core._internal.stores.filesystem.stores import FileApprovalStore
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core.errors import ApprovalRequiredError, StoreLockedError
from hsm_core.model import ApprovalState, Phase
from hsm_core.operations import CreateKey, Status
from hsm_core.protocols import ApprovalQuery, ApprovalStore, AuditDraft, AuditLog
from hsm_core.settings import ApprovalStoreKind, AuditStoreKind, PolicyProfile, Settings
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.core.approval_support import (
    Register,
    approval_id_of,
    approval_of,
    change_of,
    digest_of,
    person,
    register_of,
)
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

            assert 0 < audit.first_seq < 13
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

    def test_failure_is_told(self, tmp_path: Path) -> None:
        """What keeps records is told once, also to who asks later, and its end."""
        clock, told, told_later = FakeClock(), list[str](), list[str]()
        settings = Settings(
            key_dir=tmp_path / "keys",
            audit_log=tmp_path / "audit.log",
            audit_segment_bytes=4096,
            audit_retention_days=10,
        )
        with open_tested(settings, clock=clock) as gateway:
            audit = gateway._services.audit  # noqa: SLF001 (the trail itself)
            house = gateway._maintenance  # noqa: SLF001 (does it in its time)
            for _ in range(40):
                record(audit)
                clock.advance(DAY)
            segment = min(tmp_path.glob("audit.log.0*"))
            whole = segment.read_bytes()
            segment.write_bytes(whole.replace(b"system.start", b"system.stArt"))
            gateway.on_pruning_change(told.append)
            house.prune_trail()
            house.prune_trail()
            gateway.on_pruning_change(told_later.append)
            kept = audit.first_seq
            segment.write_bytes(whole)
            house.prune_trail()
            house.prune_trail()

            assert 0 == kept < audit.first_seq
        [problem] = told
        assert "damaged at record 1:" in problem
        assert [problem, ""] == told_later


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


S = ApprovalState


def end(register: Register, number: int) -> None:
    """Make an approval and close it at once."""
    register.ask(number)
    register.cancel(approval_id_of(number), requester="ann")


def removed(register: Register, days: int) -> set[int]:
    """Prune, and return the numbers of what is gone."""
    known = {approval_id_of(number): number for number in range(100)}
    pruned = prune_approvals(register, days)
    assert not register.tampered
    assert set(pruned).isdisjoint(register.store.approval_ids())
    return {known[name] for name in pruned}


def test_age() -> None:
    """
    What ended more than so many days ago goes, and nothing a moment younger.
    """
    clock = FakeClock()
    register = register_of(MemoryApprovalStore(), clock)
    end(register, 1)
    clock.advance(DAY)
    end(register, 2)
    clock.advance(89 * DAY)

    assert set() == removed(register, 90)
    clock.advance(0.000_001)
    assert {1} == removed(register, 90)
    assert set() == removed(register, 90)
    clock.advance(DAY)
    assert {2} == removed(register, 90)
    assert [] == list(register.store.approval_ids())


def test_states() -> None:
    """
    Whatever came to an end goes; what is reserved stays, and what waited expires first.
    """
    clock = FakeClock()
    register = register_of(MemoryApprovalStore(), clock)
    for number in range(1, 7):
        register.ask(number, seconds=3600)
    for number in (1, 2, 3):
        register.decide(approval_id_of(number), person("bob"), granted=True)
    for number in (1, 2):
        register.reserve(
            approval_id_of(number),
            operation_id="op",
            digest=digest_of(number),
            requester="ann",
        )
    register.consume(approval_id_of(1), operation_id="op")
    register.decide(approval_id_of(4), person("bob"), granted=False)
    register.cancel(approval_id_of(5), requester="ann")
    clock.advance(100 * DAY)

    assert {1, 4, 5} == removed(register, 90)
    left = register.find(ApprovalQuery()).approvals
    assert {S.RESERVED, S.EXPIRED} == {approval.state for approval in left}
    clock.advance(91 * DAY)
    assert {3, 6} == removed(register, 90)
    assert S.RESERVED is register.get(approval_id_of(2)).state


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("step", [100 * DAY, 3650 * DAY])
def test_clock_steps_forwards(step: float, restart: bool) -> None:
    """
    A clock that is years ahead removes nothing, before a restart or after it.
    """
    clock = FakeClock()
    store = MemoryApprovalStore()
    register = register_of(store, clock)
    end(register, 1)
    clock.advance(DAY)
    clock.step(step)
    if restart:
        register = register_of(store, clock)

    assert set() == removed(register, 9)
    clock.step(-step)
    assert set() == removed(register_of(store, clock), 9)
    clock.advance(9 * DAY)
    assert {1} == removed(register, 9)


def test_long_silence() -> None:
    """
    Of a time in which the HSM was off a week counts, for nobody knows more.
    """
    clock = FakeClock()
    store = MemoryApprovalStore()
    end(register_of(store, clock), 1)
    clock.advance(365 * DAY)
    register = register_of(store, clock)

    assert set() == removed(register, 7)
    clock.advance(0.000_002)
    assert {1} == removed(register, 7)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["end", "wait", "step", "restart", "prune"]),
            st.integers(-400, 400),
        ),
        max_size=25,
    )
)
def test_never_early(steps: list[tuple[str, int]]) -> None:
    """
    No step of the clock makes an approval older, but by a week if a restart follows.
    """
    clock = FakeClock()
    store = MemoryApprovalStore()
    register = register_of(store, clock)
    ended: list[tuple[float, int]] = []
    unnoticed = leaps = 0
    for what, days in [*steps, ("prune", 0)]:
        if what == "end":
            end(register, len(ended) + 1)
            ended.append((clock.monotonic(), leaps))
        elif what == "wait":
            clock.advance(abs(days) * DAY / 10)
        elif what == "step":
            clock.step(days * DAY)
            unnoticed += days > 0
        elif what == "restart":
            register = register_of(store, clock)
            leaps, unnoticed = leaps + unnoticed, 0
        else:
            for number in removed(register, 30):
                at, before = ended[number - 1]
                credit = 7 * (leaps - before) * DAY
                assert clock.monotonic() - at > 30 * DAY - credit


def test_tampered(tmp_path: Path) -> None:
    """
    What can't be believed is named and stays; what the index says makes nothing old.
    """
    clock = FakeClock()
    store = FileApprovalStore(tmp_path / "approvals")
    register = register_of(store, clock)
    for number in (1, 2, 3):
        end(register, number)
    path = tmp_path / "approvals" / f"{approval_id_of(1)}.json"
    path.write_bytes(path.read_bytes().replace(b"cancelled", b"consumed!"))
    store.remove([approval_id_of(3)])
    young = approval_of(3, state=S.GRANTED, expires_at=clock.now() * 2)
    change = change_of(young)
    lying = change_of(approval_of(3, state=S.CANCELLED, closed_at=1)).entry
    store.commit(type(change)(lying, change.record, 0))
    clock.advance(100 * DAY)

    pruned = prune_approvals(register, 90)

    assert {approval_id_of(1)} == register.tampered
    assert (approval_id_of(2),) == pruned
    assert {approval_id_of(1), approval_id_of(3)} == set(store.approval_ids())
    store.close()


def test_gone_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An approval that somebody else removed ends no prune: the others still go.
    """
    clock = FakeClock()
    register = register_of(MemoryApprovalStore(), clock)
    end(register, 1)
    clock.advance(91 * DAY)
    listed = [approval_id_of(2), approval_id_of(1)]
    monkeypatch.setattr(register.store, "approval_ids", lambda: listed)

    assert (approval_id_of(1),) == prune_approvals(register, 90)
