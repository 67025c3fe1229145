# SPDX-License-Identifier: MIT
"""Approval register: what it promises over every store, and over odd ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from hsm_core._internal.approvals import repository
from hsm_core._internal.approvals.records import entry_of
from hsm_core._internal.approvals.states import missing, reviewed
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core.errors import (
    ApprovalNotFoundError,
    ApprovalTamperedError,
    ConflictError,
    GenerationConflictError,
    InputSizeError,
    InvalidInputError,
)
from hsm_core.identities import same_person
from hsm_core.model import (
    Approval,
    ApprovalDecision,
    ApprovalDemand,
    ApprovalState,
    Caller,
    Role,
)
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
)
from hsm_core.testing import FakeClock
from tests.core.approval_support import (
    START,
    Register,
    approval_id_of,
    approval_of,
    change_of,
    digest_of,
    person,
    register_of,
)

S = ApprovalState
ONE = approval_id_of(1)


@pytest.fixture
def register(store: ApprovalStore, clock: FakeClock) -> Register:
    """Give a register with nothing in it."""
    return register_of(store, clock)


def reserve(register: Register, number: int = 1, operation: str = "op") -> Approval:
    """Reserve the n-th approval as its requester does."""
    return register.reserve(
        approval_id_of(number),
        operation_id=operation,
        digest=digest_of(number),
        requester="ann",
    )


def bring(register: Register, state: ApprovalState, number: int = 1) -> None:
    """Make the n-th approval and bring it into a state that time has no part in."""
    approval_id = approval_id_of(number)
    register.ask(number)
    if state is S.DENIED:
        register.decide(approval_id, person("bob"), granted=False)
    if state is S.CANCELLED:
        register.cancel(approval_id, requester="ann")
    if state in {S.GRANTED, S.RESERVED, S.CONSUMED}:
        register.decide(approval_id, person("bob"), granted=True)
    if state in {S.RESERVED, S.CONSUMED}:
        reserve(register, number)
    if state is S.CONSUMED:
        register.consume(approval_id, operation_id="op")


class TestMoves:
    @pytest.mark.parametrize(
        ("step", "wanted", "legal"),
        [
            ("grant", S.GRANTED, {S.PENDING, S.GRANTED}),
            ("deny", S.DENIED, {S.PENDING, S.GRANTED}),
            ("reserve", S.RESERVED, {S.GRANTED}),
            ("release", S.GRANTED, {S.RESERVED, S.GRANTED}),
            ("consume", S.CONSUMED, {S.RESERVED, S.CONSUMED}),
            ("cancel", S.CANCELLED, {S.PENDING, S.GRANTED, S.CANCELLED}),
        ],
    )
    def test_steps(
        self,
        register: Register,
        clock: FakeClock,
        step: str,
        wanted: ApprovalState,
        legal: set[ApprovalState],
    ) -> None:
        """
        From every state each step leads where it should, or says both states.
        """
        for number, state in enumerate(sorted(set(S) - {S.EXPIRED}), 1):
            bring(register, state, number)
        expired = len(S)
        register.ask(expired, seconds=1)
        clock.advance(1)
        for number, state in enumerate([*sorted(set(S) - {S.EXPIRED}), S.EXPIRED], 1):
            name = approval_id_of(number)
            run: dict[str, Callable[[], Approval]] = {
                "grant": partial(register.decide, name, person("x"), granted=True),
                "deny": partial(register.decide, name, person("x"), granted=False),
                "reserve": partial(reserve, register, number),
                "release": partial(register.release, name, operation_id="op"),
                "consume": partial(register.consume, name, operation_id="op"),
                "cancel": partial(register.cancel, name, requester="ann"),
            }
            if state in legal:
                assert wanted is run[step]().state
                continue
            with pytest.raises(ConflictError) as caught:
                run[step]()
            assert {"state": state, "wanted": wanted} == caught.value.facts
            assert state is register.get(name).state

    @pytest.mark.parametrize("operation", ["", "other"])
    def test_other_operation(self, register: Register, operation: str) -> None:
        """
        Only the operation that has an approval gives it back or uses it up.
        """
        bring(register, S.RESERVED)

        for step in (register.release, register.consume):
            with pytest.raises(ConflictError):
                step(ONE, operation_id=operation)

        assert S.RESERVED is register.get(ONE).state
        register.consume(ONE, operation_id="op")
        with pytest.raises(ConflictError):
            register.consume(ONE, operation_id="other")

    def test_unknown(self, register: Register) -> None:
        """
        What isn't there, or can't be an id, is not found by any step.
        """
        for approval_id in (ONE, "", "../x"):
            steps: list[Callable[[], Approval]] = [
                partial(register.get, approval_id),
                partial(register.cancel, approval_id, requester="ann"),
                partial(register.consume, approval_id, operation_id="op"),
            ]
            for step in steps:
                with pytest.raises(ApprovalNotFoundError):
                    step()


class TestInsert:
    def test_twice(self, register: Register) -> None:
        """
        The same request again is the one that is there; another of its id is refused.
        """
        made = register.ask(1)
        granted = register.decide(ONE, person("bob"), granted=True)

        assert granted == register.ask(1)
        assert made.created_at == granted.created_at
        with pytest.raises(ConflictError):
            register.ask(1, digest=digest_of(2))
        with pytest.raises(ConflictError):
            register.ask(1, requester="bob")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("approval_id", "x"),
            ("digest", "AB" * 32),
            ("digest", "ab" * 31),
            ("requester", ""),
            ("requester", " \u200b"),
            ("demands", ()),
        ],
    )
    def test_fields(self, register: Register, field: str, value: Any) -> None:
        """
        A request that can't be one is refused by the name of its field.
        """
        with pytest.raises(InvalidInputError) as caught:
            register.ask(1, **{field: value})

        assert field == caught.value.facts["field"]

    @pytest.mark.parametrize("comment", ["a\n", "\x00", "x" * 257])
    def test_comments(self, register: Register, comment: str) -> None:
        """
        A comment is one line of bounded length.
        """
        bring(register, S.PENDING)

        with pytest.raises(InvalidInputError) as caught:
            register.decide(ONE, person("bob"), granted=True, comment=comment)
        assert {"field": "comment"} == caught.value.facts

    @pytest.mark.parametrize("operation", ["", "A", "a/b", "x" * 65])
    def test_operation_ids(self, register: Register, operation: str) -> None:
        """
        What is no operation's id reserves nothing.
        """
        bring(register, S.GRANTED)

        with pytest.raises(InvalidInputError) as caught:
            reserve(register, operation=operation)
        assert {"field": "operation_id"} == caught.value.facts


class TestTampering:
    def put(
        self, store: ApprovalStore, name: str, record: bytes, **index: object
    ) -> None:
        """Put a record into a store, as whoever can write its files does."""
        entry = entry_of(approval_of(1, approval_id=name, **index))
        store.remove([name])
        store.commit(ApprovalChange(entry, record, 0))

    @pytest.mark.parametrize("state", [S.PENDING, S.GRANTED, S.CONSUMED])
    def test_edits(
        self, register: Register, store: ApprovalStore, state: ApprovalState
    ) -> None:
        """
        After a change of a byte anywhere a record is never believed, and is named.
        """
        bring(register, state)
        record = store.get(ONE)
        assert record is not None
        for place in range(0, len(record), 23):
            edited = bytearray(record)
            edited[place] ^= 1
            self.put(store, ONE, bytes(edited))
            words = f"^Approval {ONE} was tampered with"
            with pytest.raises(ApprovalTamperedError, match=words) as caught:
                register.get(ONE)
            assert {"approval_id": ONE} == caught.value.facts
            with pytest.raises(ApprovalTamperedError):
                reserve(register)

        assert {ONE} == register.tampered
        assert (ONE,) == register.check()
        assert ONE in register.find(ApprovalQuery()).tampered

    def test_hidden_by_the_index(self, store: ApprovalStore) -> None:
        """
        A sound record whose index facts are not its own is found by the check.
        """
        record = change_of(approval_of(1)).record
        self.put(store, ONE, record, requester="bob")

        assert (ONE,) == register_of(store).check()

    def test_index_that_refuses(self, register: Register, store: ApprovalStore) -> None:
        """
        An index whose generation is wrong is told from a race, and at once.
        """
        bring(register, S.GRANTED)
        self.put(store, ONE, store.get(ONE) or b"")

        words = f"^The index entry of approval {ONE} was altered"
        with pytest.raises(ApprovalTamperedError, match=words) as caught:
            reserve(register)
        assert {"approval_id": ONE} == caught.value.facts
        assert {ONE} == register.tampered


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
def odd() -> OddStore:
    """Give a store with one pending approval, and nothing in the way yet."""
    found = OddStore()
    register = register_of(found)
    register.ask(1, quorum=50)
    return found


def test_overtaken(odd: OddStore) -> None:
    """
    A step that was overtaken is made on what is there then.
    """
    mine = register_of(odd)
    left = ["x", "y", "z"]

    def overtake(change: ApprovalChange) -> None:
        if left:
            register_of(odd).decide(ONE, person(left.pop()), granted=True)

    odd.before_commit = overtake
    made = mine.decide(ONE, person("bob"), granted=True)

    assert {"x", "y", "z", "bob"} == {d.principal for d in made.decisions}


def test_overtaken_for_ever(odd: OddStore) -> None:
    """
    After so many attempts a step is given up, with nothing called tampered.
    """
    other = register_of(odd)
    busy = [False]

    def overtake(change: ApprovalChange) -> None:
        if not busy[0]:
            busy[0] = True
            stolen = other.read(ONE)
            taken = approval_of(
                1, generation=stolen.generation + 1, expires_at=stolen.expires_at
            )
            odd.commit(change_of(taken))
            busy[0] = False

    odd.before_commit = overtake
    mine = register_of(odd)

    with pytest.raises(GenerationConflictError):
        mine.decide(ONE, person("bob"), granted=True)
    assert frozenset() == mine.tampered


def test_hidden_record(odd: OddStore) -> None:
    """
    A sound record that no page shows is found by the check.
    """
    odd.hidden = {ONE}

    assert (ONE,) == register_of(odd).check()
    odd.hidden = set()
    assert () == register_of(odd).check()


def test_index_in_the_making(odd: OddStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An index that is behind its record for a moment only is not called a lie.
    """
    register = register_of(odd)
    odd.hidden = {ONE}
    monkeypatch.setattr("time.sleep", lambda seconds: odd.hidden.clear())

    assert () == register.check()


def test_many_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A listing of lies in the index ends soon and says where; a check names them all.
    """
    monkeypatch.setattr(repository, "_PAGE", 10)
    store = MemoryApprovalStore()
    for number in range(1, 50):
        change = change_of(approval_of(number, state=S.DENIED, closed_at=1))
        store.commit(replace(change, entry=replace(change.entry, state=S.GRANTED)))
    register = register_of(store)
    query = ApprovalQuery(states=frozenset({S.GRANTED}), limit=2)

    page = register.find(query)

    assert () == page.approvals
    assert (approval_of(30).created_at, approval_id_of(30)) == page.after
    assert {approval_id_of(number) for number in range(1, 50)} == set(
        register_of(store).check()
    )


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


DEMAND = ApprovalDemand(rule="two-people")
YEAR = 366 * 24 * 3600


def demands_of(field: str, value: int) -> dict[str, Any]:
    """Return a request's demands with one number in them, whatever it is."""
    return {"demands": (msgspec.structs.replace(DEMAND, **{field: value}),)}


@pytest.mark.parametrize(
    ("field", "facts", "most", "unit"),
    [
        ("seconds", lambda value: {"seconds": value}, YEAR, "seconds"),
        ("demands", lambda value: {"demands": (DEMAND,) * value}, 16, "demands"),
        ("quorum", lambda value: demands_of("quorum", value), 100, "people"),
        ("uses", lambda value: demands_of("uses", value), 1_000_000, "uses"),
        ("seconds", lambda value: demands_of("seconds", value), YEAR, "seconds"),
    ],
    ids=["seconds", "demands", "quorum", "uses", "seconds of a demand"],
)
def test_bounds(
    field: str, facts: Callable[[int], dict[str, Any]], most: int, unit: str
) -> None:
    """
    What a request counts is between 1 and its maximum, and those are told.
    """
    for value in (1, most):
        made = register_of(MemoryApprovalStore()).ask(1, **facts(value))
        assert 1 == made.generation
    for value in (0, most + 1):
        store = MemoryApprovalStore()
        words = f"^{field} must be between 1 and {most} {unit}, got {value}"
        with pytest.raises(InputSizeError, match=words) as caught:
            register_of(store).ask(1, **facts(value))
        limits = {"actual": value, "minimum": 1, "maximum": most}
        assert {"field": field, **limits} == caught.value.facts
        assert [] == list(store.approval_ids())


@pytest.mark.parametrize(
    ("step", "kib"), [("insert", 32), ("grant", 48), ("deny", 56), ("review", 64)]
)
def test_room(step: str, kib: int) -> None:
    """
    A record has its most bytes by the step that writes it, and not one more.
    """

    def stored_bytes(length: int) -> int:
        store = MemoryApprovalStore()
        register = register_of(store)
        name = "n" * length
        if step == "insert":
            register.ask(1, key_id=name)
            return len(store.get(ONE) or b"")
        register.ask(1, quorum=2)
        if step == "review":
            demands = [ApprovalDemand(rule=name)]
            register.change(
                ONE, lambda found, now: reviewed(found, demands, lambda d: True, now)
            )
        else:
            bob = Caller(principal="bob", roles=frozenset(), credential_id=name)
            register.decide(ONE, bob, granted=step == "grant")
        return len(store.get(ONE) or b"")

    room = kib * 1024 - stored_bytes(1)

    assert kib * 1024 == stored_bytes(1 + room)
    with pytest.raises(InputSizeError) as caught:
        stored_bytes(2 + room)
    limits = caught.value.facts["actual"], caught.value.facts["maximum"]
    assert (kib * 1024 + 1, kib * 1024) == limits


def said(name: str, *roles: Role, signature: bytes = b"") -> ApprovalDecision:
    """Return a grant by somebody."""
    return ApprovalDecision(
        principal=name, granted=True, at=START, roles=roles, signature=signature
    )


@pytest.mark.parametrize(
    ("facts", "people", "words"),
    [
        ({}, (), ("1 more person",)),
        ({"quorum": 3}, (said("bob"),), ("2 more people",)),
        ({"quorum": 2}, (said("bob"), said("Bob")), ("1 more person",)),
        ({"quorum": 2}, (said("bob"), said("eve")), ()),
        ({"signed": True}, (said("bob"),), ("1 more person, signed",)),
        ({"signed": True}, (said("bob", signature=b"s"),), ()),
        (
            {"quorum": 2, "roles": (Role.AUDITOR, Role.OPERATOR)},
            (said("bob", Role.SERVICE), said("eve", Role.OPERATOR)),
            ("1 more of Auditor or Operator",),
        ),
        (
            {"distinct_roles": (Role.AUDITOR, Role.OPERATOR)},
            (said("bob", Role.AUDITOR, Role.OPERATOR),),
            ("1 more of Operator",),
        ),
        (
            {"distinct_roles": (Role.AUDITOR, Role.OPERATOR)},
            (said("bob", Role.AUDITOR, Role.OPERATOR), said("eve", Role.AUDITOR)),
            (),
        ),
        (
            {"distinct_roles": (Role.AUDITOR,), "signed": True},
            (),
            ("1 more person, signed", "1 more of Auditor, signed"),
        ),
    ],
)
def test_words_of_what_is_missing(
    facts: dict[str, Any], people: tuple[ApprovalDecision, ...], words: tuple[str, ...]
) -> None:
    """
    What is still needed is told by number, role and signature.
    """
    demand = ApprovalDemand(rule="r", **facts)

    assert words == missing([demand], people)
    # Two rules that ask for the same are told once.
    assert words == missing([demand, demand], people)


def test_too_many_demands() -> None:
    """
    Sixteen demands fit; a policy that asks for one more makes people ask anew.
    """
    asked = approval_of(1)
    new = [ApprovalDemand(rule=f"new-{n}") for n in range(16)]

    full = reviewed(asked, new[:15], lambda decision: True, START)
    assert 16 == len(full.demands)
    with pytest.raises(ConflictError, match="open a new one"):
        reviewed(asked, new, lambda decision: True, START)
