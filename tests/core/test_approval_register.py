# SPDX-License-Identifier: MIT
"""The register of approvals over stores that lie or move under it; and its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.approvals.maintenance import prune_approvals
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core._internal.time.clock import SteadyTime
from hsm_core.errors import (
    ApprovalNotFoundError,
    GenerationConflictError,
    StoreUnavailableError,
)
from hsm_core.identities import same_person
from hsm_core.model import ApprovalDecision, ApprovalState
from hsm_core.protocols import ApprovalChange, ApprovalEntry, ApprovalQuery
from hsm_core.testing import FakeClock
from tests.core.approval_support import (
    START,
    approval_id_of,
    approval_of,
    change_of,
    digest_of,
    person,
    register_of,
    request_of,
)

S = ApprovalState
ONE = approval_id_of(1)
LATE = START + 7 * 24 * 3600 * 1_000_000


class OddStore(MemoryApprovalStore):
    """
    A store with something in the way.

    Attributes:
        before_commit: Called before each commit.
        hidden: Ids that no page shows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_commit: Callable[[ApprovalChange], None] = lambda change: None
        self.hidden: set[str] = set()

    def commit(self, change: ApprovalChange, /) -> None:
        """Let something happen first."""
        self.before_commit(change)
        super().commit(change)

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Leave out what is hidden."""
        found = super().find(query)
        return [entry for entry in found if entry.approval_id not in self.hidden]


@pytest.fixture
def store() -> OddStore:
    """Give a store with one pending approval, and nothing in the way yet."""
    found = OddStore()
    register = register_of(found)
    register.insert(request_of(1, quorum=50))
    return found


def test_overtaken(store: OddStore) -> None:
    """
    A step that was overtaken is made on what is there then.
    """
    mine = register_of(store)
    left = ["x", "y", "z"]

    def overtake(change: ApprovalChange) -> None:
        if left:
            register_of(store).decide(ONE, person(left.pop()), granted=True)

    store.before_commit = overtake
    made = mine.decide(ONE, person("bob"), granted=True)

    assert {"x", "y", "z", "bob"} == {d.principal for d in made.decisions}


def test_overtaken_while_it_expires(store: OddStore) -> None:
    """
    A denial that comes first is told, though time would have ended the request too.
    """
    clock = FakeClock()
    mine, other = register_of(store, clock), register_of(store)
    clock.advance(3600)

    def overtake(change: ApprovalChange) -> None:
        store.before_commit = lambda change: None
        other.decide(ONE, person("x"), granted=False)

    store.before_commit = overtake

    assert S.DENIED is mine.get(ONE).state


def test_overtaken_for_ever(store: OddStore) -> None:
    """
    After so many attempts a step is given up, with nothing called tampered.
    """
    other = register_of(store)
    busy = [False]

    def overtake(change: ApprovalChange) -> None:
        if not busy[0]:
            busy[0] = True
            stolen = other.read(ONE)
            taken = approval_of(
                1, generation=stolen.generation + 1, expires_at=stolen.expires_at
            )
            store.commit(change_of(taken))
            busy[0] = False

    store.before_commit = overtake
    mine = register_of(store)

    with pytest.raises(GenerationConflictError):
        mine.decide(ONE, person("bob"), granted=True)
    assert frozenset() == mine.tampered


def test_hidden_record(store: OddStore) -> None:
    """
    A sound record that no page shows is found by the check.
    """
    store.hidden = {ONE}

    assert (ONE,) == register_of(store).check()
    store.hidden = set()
    assert () == register_of(store).check()


def test_index_in_the_making(store: OddStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An index that is behind its record for a moment only is not called a lie.
    """
    register = register_of(store)
    store.hidden = {ONE}
    monkeypatch.setattr("time.sleep", lambda seconds: store.hidden.clear())

    assert () == register.check()


def test_many_lies() -> None:
    """
    A listing of records whose index lies ends soon, and says where to go on.
    """
    store = MemoryApprovalStore()
    for number in range(1, 50):
        change = change_of(approval_of(number, state=S.DENIED, closed_at=1))
        store.commit(replace(change, entry=replace(change.entry, state=S.GRANTED)))
    register = register_of(store)
    query = ApprovalQuery(states=frozenset({S.GRANTED}), limit=2)

    page = register.find(query)

    assert () == page.approvals
    assert (approval_of(30).created_at, approval_id_of(30)) == page.after


def test_removed_meanwhile(store: OddStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What goes away under a prune or a listing is in nobody's way.
    """
    register = register_of(store)
    monkeypatch.setattr(store, "approval_ids", lambda: [ONE, approval_id_of(2)])

    assert () == prune_approvals(register, 1).tampered
    store.remove([ONE])
    with pytest.raises(ApprovalNotFoundError):
        register.get(ONE)
    assert () == register.check()


def test_no_end_that_is_not_written(store: OddStore) -> None:
    """
    Where it can't be written down that an approval has expired, it isn't told either.
    """
    clock = FakeClock()
    register = register_of(store, clock)
    clock.advance(3600)

    def full(change: ApprovalChange) -> None:
        raise StoreUnavailableError

    store.before_commit = full
    for ask in (
        lambda: register.get(ONE),
        lambda: register.find(ApprovalQuery()),
    ):
        with pytest.raises(StoreUnavailableError):
            ask()
    with pytest.raises(StoreUnavailableError):
        register.reserve(ONE, operation_id="op", digest=digest_of(1), requester="ann")


@pytest.mark.parametrize(
    "facts",
    [
        {"created_at": LATE},
        {"decisions": (ApprovalDecision(principal="x", granted=True, at=LATE),)},
        {"state": S.CANCELLED, "closed_at": LATE},
    ],
    ids=["made", "decided", "closed"],
)
def test_nothing_lies_ahead(facts: dict[str, object]) -> None:
    """
    Time begins no earlier than the last thing that happened to an approval.
    """
    store = MemoryApprovalStore()
    store.commit(change_of(approval_of(1, **facts)))
    register = register_of(store)

    assert LATE == register.opened_at == register.time.now()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ann", "Ann", True),
        ("ann", "ann ", True),
        ("stra\u00dfe", "STRASSE", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("\u2126", "\u03c9", True),
        ("a  b", "a b", True),
        # A variation selector, a joiner, two fillers, a blank of Braille, a tag.
        *((f"an{c}n", "ann", True) for c in "\ufe0f\u034f\u3164\u1160\U000e0041"),
        *((f"ann{c}", "ann", True) for c in "\U000e0100\u2800\u200d\u00ad"),
        ("a\u2800b", "a b", True),
        ("a b", "ab", False),
        ("ann", "anne", False),
        ("caf\u00e9", "cafe", False),
        ("", "ann", False),
    ],
)
def test_same_person(one: str, other: str, *, same: bool) -> None:
    """
    Spellings of one name are one person, and other names are not.
    """
    assert same is same_person(one, other)
    assert same is same_person(other, one)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wait", "step", "seen"]), st.integers(-100_000, 100_000)
        ),
        max_size=20,
    )
)
def test_steady_time(steps: list[tuple[str, int]]) -> None:
    """
    It is never earlier than the clock, nor than before, and passes as time does.
    """
    clock = FakeClock()
    time = SteadyTime(clock)
    latest = time.now()
    for what, seconds in steps:
        if what == "wait":
            clock.advance(abs(seconds))
            assert time.now() >= latest + abs(seconds) * 1_000_000
        elif what == "step":
            clock.step(seconds)
            assert time.now() == max(latest, clock.now())
        else:
            time.seen(latest + seconds * 1_000_000)
            assert time.now() == max(latest, latest + seconds * 1_000_000)
        latest = time.now()
        assert latest >= clock.now()
