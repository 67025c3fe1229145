# SPDX-License-Identifier: MIT
"""Approvals that came to an end are removed when they are old, and never early."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.approvals.maintenance import prune_approvals
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.stores.filesystem.stores import FileApprovalStore
from hsm_core._internal.stores.locations import open_approval_store
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core.errors import ConfigurationError
from hsm_core.model import ApprovalState
from hsm_core.protocols import ApprovalQuery, ApprovalStore
from hsm_core.settings import ApprovalStoreKind, Settings
from hsm_core.testing import FakeClock
from tests.core.approval_support import (
    approval_id_of,
    approval_of,
    change_of,
    digest_of,
    person,
    register_of,
    request_of,
)

DAY = 24 * 3600.0
S = ApprovalState


def end(register: ApprovalRegister, number: int) -> None:
    """Make an approval and close it at once."""
    register.insert(request_of(number))
    register.cancel(approval_id_of(number), requester="ann")


def removed(register: ApprovalRegister, days: int) -> set[int]:
    """Prune, and return the numbers of what is gone."""
    known = {approval_id_of(number): number for number in range(100)}
    pruned = prune_approvals(register, days)
    assert () == pruned.tampered
    assert set(pruned.removed).isdisjoint(register.store.approval_ids())
    return {known[name] for name in pruned.removed}


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


def test_no_age() -> None:
    """
    Without an age nothing is removed.
    """
    clock = FakeClock()
    register = register_of(MemoryApprovalStore(), clock)
    end(register, 1)
    clock.advance(1000 * DAY)

    assert set() == removed(register, 0)


def test_states() -> None:
    """
    Whatever came to an end goes; what is reserved stays, and what waited expires first.
    """
    clock = FakeClock()
    register = register_of(MemoryApprovalStore(), clock)
    for number in range(1, 7):
        register.insert(request_of(number, seconds=3600))
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


def test_step_while_somebody_writes() -> None:
    """
    Approvals made while the clock was ahead make the others no older.
    """
    clock = FakeClock()
    store = MemoryApprovalStore()
    register = register_of(store, clock)
    end(register, 1)
    clock.step(3650 * DAY)
    end(register, 2)
    clock.step(-3650 * DAY)
    for _ in range(3):
        register = register_of(store, clock)
        assert set() == removed(register, 9)
    clock.advance(10 * DAY)

    assert {1, 2} == removed(register, 9)


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


def test_quiet_restarts() -> None:
    """
    Where something happens every week, restarts keep nothing longer than it should be.
    """
    clock = FakeClock()
    store = MemoryApprovalStore()
    gone = set()
    for number in range(1, 30):
        register = register_of(store, clock)
        end(register, number)
        clock.advance(6 * DAY)
        gone |= removed(register_of(store, clock), 90)

    assert set(range(1, 15)) == gone


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

    assert (approval_id_of(1),) == pruned.tampered
    assert (approval_id_of(2),) == pruned.removed
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

    assert (approval_id_of(1),) == prune_approvals(register, 90).removed


@pytest.mark.parametrize("kind", ApprovalStoreKind)
def test_opened_by_settings(tmp_path: Path, kind: ApprovalStoreKind) -> None:
    """
    The store that the settings name is opened where they say.
    """
    opened: ApprovalStore = open_approval_store(
        Settings(
            approval_store=kind,
            approval_dir=tmp_path / "files",
            approval_sqlite_path=tmp_path / "db" / "approvals.sqlite",
        )
    )
    end(register_of(opened), 1)
    opened.close()

    wanted = {"file": "files", "sqlite": "db"}.get(kind)
    assert ({wanted} if wanted else set()) == {p.name for p in tmp_path.iterdir()}


def test_unknown_store() -> None:
    """
    A store that nobody offers is refused by name.
    """
    with pytest.raises(ConfigurationError, match="nowhere"):
        open_approval_store(Settings(approval_store="nowhere:x"))
