# SPDX-License-Identifier: MIT
"""What the register of approvals promises, over every store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import msgspec
import pytest

from hsm_core._internal.approvals.records import encode_approval, entry_of
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.approvals.states import MOVES, check_move
from hsm_core._internal.lib.encoding import mac_function
from hsm_core.errors import (
    AccessDeniedError,
    ApprovalNotFoundError,
    ApprovalTamperedError,
    ConflictError,
    HSMError,
    InputSizeError,
    InvalidInputError,
)
from hsm_core.model import Approval, ApprovalDemand, ApprovalState
from hsm_core.protocols import ApprovalChange, ApprovalQuery, ApprovalStore
from hsm_core.testing import FakeClock
from tests.core.approval_support import (
    DURABLE,
    ROWS,
    START,
    ApprovalRow,
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
HOUR = 3600.0


@pytest.fixture(params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> ApprovalRow:
    """Give one implementation after the other."""
    found: ApprovalRow = request.param
    return found


@pytest.fixture
def store(row: ApprovalRow, tmp_path: Path) -> Iterator[ApprovalStore]:
    """Give an open, empty store."""
    opened = row.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands still."""
    return FakeClock()


@pytest.fixture
def register(store: ApprovalStore, clock: FakeClock) -> ApprovalRegister:
    """Give a register with nothing in it."""
    return register_of(store, clock)


def reserve(
    register: ApprovalRegister, number: int = 1, operation: str = "op"
) -> Approval:
    """Reserve the n-th approval as its requester does."""
    return register.reserve(
        approval_id_of(number),
        operation_id=operation,
        digest=digest_of(number),
        requester="ann",
    )


def bring(register: ApprovalRegister, state: ApprovalState, number: int = 1) -> None:
    """Make the n-th approval and bring it into a state that time has no part in."""
    approval_id = approval_id_of(number)
    register.insert(request_of(number))
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


class TestLife:
    def test_whole(self, register: ApprovalRegister, clock: FakeClock) -> None:
        """
        A request is granted by enough people, used once, and keeps who said what.
        """
        made = register.insert(request_of(1, quorum=2, key_id="k"))
        clock.advance(1)
        once = register.decide(ONE, person("bob"), granted=True, comment="fine")
        clock.advance(1)
        twice = register.decide(ONE, person("carl"), granted=True)
        held = reserve(register)
        clock.advance(1)
        used = register.consume(ONE, operation_id="op")

        steps = (made, once, twice, held, used)
        assert [S.PENDING, S.PENDING, S.GRANTED, S.RESERVED, S.CONSUMED] == [
            step.state for step in steps
        ]
        assert [1, 2, 3, 4, 5] == [step.generation for step in steps]
        assert [("bob", True, START + 1_000_000, "token-bob", "fine")] == [
            (d.principal, d.granted, d.at, d.credential_id, d.comment)
            for d in used.decisions[:1]
        ]
        assert (START, START + 3_600_000_000) == (used.created_at, used.expires_at)
        assert ("op", START + 3_000_000) == (used.operation_id, used.closed_at)
        assert ("k", "ann") == (used.key_id, used.requester)
        assert used == register.get(ONE)

    def test_given_back(self, register: ApprovalRegister) -> None:
        """
        What its operation gives back can be reserved by another one.
        """
        bring(register, S.RESERVED)

        back = register.release(ONE, operation_id="op")
        again = reserve(register, operation="op-2")

        assert (S.GRANTED, "") == (back.state, back.operation_id)
        assert (S.RESERVED, "op-2") == (again.state, again.operation_id)

    @pytest.mark.parametrize("row", DURABLE, ids=str)
    def test_consumed_stays_consumed(self, row: ApprovalRow, tmp_path: Path) -> None:
        """
        A consumed approval is consumed after a restart, and serves nothing more.
        """
        store = row.open(tmp_path)
        bring(register_of(store), S.CONSUMED)
        store.close()
        store = row.open(tmp_path)
        register = register_of(store)

        assert S.CONSUMED is register.get(ONE).state
        with pytest.raises(ConflictError):
            reserve(register)
        with pytest.raises(ConflictError):
            register.release(ONE, operation_id="op")
        store.close()


class TestMoves:
    def test_table(self) -> None:
        """
        The legal moves, written out a second time.
        """
        legal = {
            (S.PENDING, S.GRANTED),
            (S.PENDING, S.DENIED),
            (S.PENDING, S.CANCELLED),
            (S.PENDING, S.EXPIRED),
            (S.GRANTED, S.PENDING),
            (S.GRANTED, S.RESERVED),
            (S.GRANTED, S.DENIED),
            (S.GRANTED, S.CANCELLED),
            (S.GRANTED, S.EXPIRED),
            (S.RESERVED, S.GRANTED),
            (S.RESERVED, S.CONSUMED),
        }
        for before, wanted in product(S, S):
            if (before, wanted) in legal:
                check_move(before, wanted)
                continue
            with pytest.raises(ConflictError) as caught:
                check_move(before, wanted)
            assert str(caught.value).startswith(
                f"The approval is {before} and can't become {wanted}"
            )
            assert {"state": before, "wanted": wanted} == caught.value.facts
        assert set(S) == set(MOVES)

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
        register: ApprovalRegister,
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
        register.insert(request_of(expired, seconds=1))
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
    def test_other_operation(self, register: ApprovalRegister, operation: str) -> None:
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

    def test_pending_is_never_given_back(self, register: ApprovalRegister) -> None:
        """
        Giving back what nobody reserved grants nothing.
        """
        bring(register, S.PENDING)

        with pytest.raises(ConflictError):
            register.release(ONE, operation_id="")

        assert S.PENDING is register.get(ONE).state

    def test_grant_frees_nothing(self, register: ApprovalRegister) -> None:
        """
        A grant that comes while an operation has the approval doesn't free it.
        """
        bring(register, S.RESERVED)

        with pytest.raises(ConflictError):
            register.decide(ONE, person("carl"), granted=True)

        assert S.RESERVED is register.get(ONE).state

    def test_unknown(self, register: ApprovalRegister) -> None:
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


class TestPeople:
    @pytest.mark.parametrize(
        "name",
        ["ann", "ANN", " ann ", "\uff41nn", "a\u200bnn", "ann\u00ad"],
    )
    @pytest.mark.parametrize("granted", [True, False])
    def test_own_request(
        self, register: ApprovalRegister, name: str, granted: bool
    ) -> None:
        """
        Nobody decides on their own request, under whatever spelling of their name.
        """
        bring(register, S.PENDING)

        with pytest.raises(AccessDeniedError):
            register.decide(ONE, person(name), granted=granted)

        assert () == register.get(ONE).decisions

    @pytest.mark.parametrize("name", ["bob", "BOB", "bob\u200d", "\uff22ob"])
    def test_one_decision_each(self, register: ApprovalRegister, name: str) -> None:
        """
        One person counts once, and who clicks twice hears what became of it.
        """
        register.insert(request_of(1, quorum=2))
        once = register.decide(ONE, person("bob"), granted=True)

        assert once == register.decide(ONE, person(name), granted=True)
        with pytest.raises(ConflictError):
            register.decide(ONE, person(name), granted=False)
        assert once == register.get(ONE)

    def test_denial_is_last(self, register: ApprovalRegister) -> None:
        """
        One denial closes a request; nobody can grant it any more.
        """
        register.insert(request_of(1, quorum=2))
        register.decide(ONE, person("bob"), granted=True)
        denied = register.decide(ONE, person("carl"), granted=False)

        with pytest.raises(ConflictError):
            register.decide(ONE, person("dora"), granted=True)
        assert S.DENIED is denied.state
        assert START == denied.closed_at
        assert denied == register.decide(ONE, person("carl"), granted=False)
        assert denied == register.decide(ONE, person("bob"), granted=True)

    def test_denial_after_grant(self, register: ApprovalRegister) -> None:
        """
        What was granted and not yet used can still be denied, and more may agree.
        """
        bring(register, S.GRANTED)
        more = register.decide(ONE, person("carl"), granted=True)
        denied = register.decide(ONE, person("dora"), granted=False)

        assert (S.GRANTED, 2) == (more.state, len(more.decisions))
        assert (S.DENIED, 3) == (denied.state, len(denied.decisions))
        with pytest.raises(ConflictError):
            reserve(register)

    @pytest.mark.parametrize("requester", ["bob", "ANN", ""])
    def test_of_another(self, register: ApprovalRegister, requester: str) -> None:
        """
        Only who asked for an approval uses or cancels it.
        """
        bring(register, S.GRANTED)

        with pytest.raises(AccessDeniedError):
            register.reserve(
                ONE, operation_id="op", digest=digest_of(1), requester=requester
            )
        if requester == "ANN":
            return  # Another spelling of the requester's name cancels.
        with pytest.raises(AccessDeniedError):
            register.cancel(ONE, requester=requester)
        assert S.GRANTED is register.get(ONE).state

    @pytest.mark.parametrize("digest", ["", digest_of(2), digest_of(1).upper() + "é"])
    def test_for_another_operation(
        self, register: ApprovalRegister, digest: str
    ) -> None:
        """
        An approval of one operation does not serve another.
        """
        bring(register, S.GRANTED)

        with pytest.raises(AccessDeniedError):
            register.reserve(ONE, operation_id="op", digest=digest, requester="ann")

    def test_cancelled_twice(self, register: ApprovalRegister) -> None:
        """
        Who cancels twice hears that it is cancelled.
        """
        bring(register, S.PENDING)

        once = register.cancel(ONE, requester="ann")
        assert once == register.cancel(ONE, requester="ann")


class TestInsert:
    def test_twice(self, register: ApprovalRegister) -> None:
        """
        The same request again is the one that is there; another of its id is refused.
        """
        made = register.insert(request_of(1))
        granted = register.decide(ONE, person("bob"), granted=True)

        assert granted == register.insert(request_of(1))
        assert made.created_at == granted.created_at
        with pytest.raises(ConflictError):
            register.insert(request_of(1, digest=digest_of(2)))
        with pytest.raises(ConflictError):
            register.insert(request_of(1, requester="bob"))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("approval_id", "x"),
            ("digest", "AB" * 32),
            ("digest", "ab" * 31),
            ("requester", ""),
            ("requester", " \u200b"),
            ("demands", ()),
            ("demands", (ApprovalDemand(rule="r"),) * 17),
            ("seconds", 0),
            ("seconds", 367 * 86400),
        ],
    )
    def test_fields(
        self, register: ApprovalRegister, field: str, value: object
    ) -> None:
        """
        A request that can't be one is refused by the name of its field.
        """
        with pytest.raises(InvalidInputError) as caught:
            register.insert(request_of(1, **{field: value}))

        assert field == caught.value.facts["field"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [("quorum", 0), ("quorum", 101), ("uses", 0), ("seconds", 0)],
    )
    def test_demands(self, register: ApprovalRegister, field: str, value: int) -> None:
        """
        A demand that nobody or everybody meets is refused, whoever built it.
        """
        demand = msgspec.structs.replace(ApprovalDemand(rule="r"), **{field: value})

        with pytest.raises(InvalidInputError) as caught:
            register.insert(request_of(1, demands=(demand,)))

        assert field == caught.value.facts["field"]

    def test_room_for_the_end(self, register: ApprovalRegister) -> None:
        """
        However many agree at length, there is room for a denial, and for the use.
        """
        with pytest.raises(InputSizeError):
            register.insert(request_of(1, sealed=bytes(25_000)))
        register.insert(request_of(1, quorum=100, sealed=bytes(23_500)))
        long = "\U0001f511" * 256
        grants = (
            register.decide(ONE, person(f"p{number}"), granted=True, comment=long)
            for number in range(100)
        )
        with pytest.raises(InputSizeError):
            list(grants)

        denied = register.decide(ONE, person("q"), granted=False, comment=long)

        assert S.DENIED is denied.state
        assert 4 < len(denied.decisions) < 100

    @pytest.mark.parametrize("comment", ["a\n", "\x00", "x" * 257])
    def test_comments(self, register: ApprovalRegister, comment: str) -> None:
        """
        A comment is one line of bounded length.
        """
        bring(register, S.PENDING)

        with pytest.raises(InvalidInputError) as caught:
            register.decide(ONE, person("bob"), granted=True, comment=comment)
        assert {"field": "comment"} == caught.value.facts

    @pytest.mark.parametrize("operation", ["", "A", "a/b", "x" * 65])
    def test_operation_ids(self, register: ApprovalRegister, operation: str) -> None:
        """
        What is no operation's id reserves nothing.
        """
        bring(register, S.GRANTED)

        with pytest.raises(InvalidInputError) as caught:
            reserve(register, operation=operation)
        assert {"field": "operation_id"} == caught.value.facts


class TestTime:
    def test_edge(self, register: ApprovalRegister, clock: FakeClock) -> None:
        """
        An approval serves until the last microsecond before it expires.
        """
        for number in (1, 2):
            bring(register, S.GRANTED, number)
        clock.advance(HOUR - 0.000_001)
        reserve(register, 1)
        clock.advance(0.000_001)

        with pytest.raises(ConflictError) as caught:
            reserve(register, 2)

        assert {"state": "expired", "wanted": "reserved"} == caught.value.facts
        assert START + 3_600_000_000 == register.get(approval_id_of(2)).closed_at

    def test_reserved_in_time(
        self, register: ApprovalRegister, clock: FakeClock
    ) -> None:
        """
        What was reserved in time may be used up later, but not be given back for more.
        """
        for number in (1, 2):
            bring(register, S.RESERVED, number)
        clock.advance(2 * HOUR)

        assert S.CONSUMED is register.consume(ONE, operation_id="op").state
        register.release(approval_id_of(2), operation_id="op")
        assert S.EXPIRED is register.get(approval_id_of(2)).state

    def test_clock_set_back(self, register: ApprovalRegister, clock: FakeClock) -> None:
        """
        A clock that is set back an hour revives nothing, and time still goes on.
        """
        for number in (1, 2):
            bring(register, S.GRANTED, number)
        register.insert(request_of(3, seconds=7200))
        clock.advance(HOUR)
        assert S.EXPIRED is register.get(ONE).state
        clock.step(-HOUR)

        for number in (1, 2):
            with pytest.raises(ConflictError):
                reserve(register, number)
        clock.advance(HOUR)
        assert S.EXPIRED is register.get(approval_id_of(3)).state

    @pytest.mark.parametrize("row", DURABLE, ids=str)
    def test_clock_set_back_while_closed(
        self, row: ApprovalRow, tmp_path: Path
    ) -> None:
        """
        After a restart too, time is not earlier than the newest instant that is known.
        """
        clock = FakeClock()
        store = row.open(tmp_path)
        register = register_of(store, clock)
        for number in (1, 2):
            bring(register, S.GRANTED, number)
        clock.advance(HOUR)
        assert S.EXPIRED is register.get(ONE).state
        store.close()
        clock.step(-HOUR)
        store = row.open(tmp_path)

        assert S.EXPIRED is register_of(store, clock).get(ONE).state
        assert START + 3_600_000_000 == register_of(store, clock).time.now()
        assert S.EXPIRED is register_of(store, clock).get(approval_id_of(2)).state
        later = register_of(store, clock, floor=START + 9_000_000_000)
        assert START + 9_000_000_000 == later.time.now()
        store.close()

    def test_expired_before_it_is_told(
        self, register: ApprovalRegister, clock: FakeClock, store: ApprovalStore
    ) -> None:
        """
        That an approval has expired is in the store before anybody hears it.
        """
        bring(register, S.GRANTED)
        clock.advance(HOUR)

        page = register.find(ApprovalQuery(states=frozenset({S.GRANTED})))

        assert () == page.approvals
        assert [S.EXPIRED] == [e.state for e in store.find(ApprovalQuery())]


class TestCrowds:
    def all_at_once(
        self, asks: Sequence[Callable[[], Approval]]
    ) -> list[Approval | HSMError]:
        """Ask everything at once, in threads; return answers and refusals."""
        barrier = threading.Barrier(len(asks))

        def one(ask: Callable[[], Approval]) -> Approval | HSMError:
            barrier.wait()
            try:
                return ask()
            except HSMError as error:
                return error

        with ThreadPoolExecutor(len(asks)) as pool:
            return list(pool.map(one, asks))

    @pytest.mark.parametrize("same", [False, True])
    def test_reserve(self, register: ApprovalRegister, same: bool) -> None:
        """
        Of 50 who reserve one approval at once, be it for one operation, one gets it.
        """
        bring(register, S.GRANTED)

        answers = self.all_at_once(
            [
                partial(reserve, register, operation="op" if same else f"op-{n}")
                for n in range(50)
            ]
        )

        (winner,) = [a for a in answers if isinstance(a, Approval)]
        assert winner == register.get(ONE)
        assert {ConflictError} == {type(a) for a in answers} - {Approval}

    def test_grants(self, register: ApprovalRegister) -> None:
        """
        Of many grants at once none is lost.
        """
        register.insert(request_of(1, quorum=20))

        self.all_at_once(
            [
                partial(register.decide, ONE, person(f"p{n}"), granted=True)
                for n in range(20)
            ]
        )

        found = register.get(ONE)
        assert (S.GRANTED, 21) == (found.state, found.generation)
        assert {f"p{n}" for n in range(20)} == {d.principal for d in found.decisions}

    def test_denial_against_use(self, register: ApprovalRegister) -> None:
        """
        Of a denial and a use at once one is made, and what was acknowledged holds.
        """
        for number in range(1, 16):
            bring(register, S.GRANTED, number)
            name = approval_id_of(number)
            asks: list[Callable[[], Approval]] = [
                partial(reserve, register, number),
                partial(register.decide, name, person("x"), granted=False),
                partial(register.decide, name, person("y"), granted=True),
                partial(register.cancel, name, requester="ann"),
            ]
            answers = self.all_at_once(asks)

            used, denied, _, cancelled = (isinstance(a, Approval) for a in answers)
            assert 1 == used + denied + cancelled
            final = S.RESERVED if used else S.DENIED if denied else S.CANCELLED
            assert final is register.get(name).state


class TestFind:
    def test_pages(self, register: ApprovalRegister, clock: FakeClock) -> None:
        """
        Pages show what is asked for, newest first, and say where to go on.
        """
        for number in range(1, 8):
            bring(register, S.GRANTED if number % 2 else S.PENDING, number)
            clock.advance(1)
        query = ApprovalQuery(states=frozenset({S.GRANTED}), limit=3)
        first = register.find(query)
        second = register.find(replace(query, after=first.after))

        assert [7, 5, 3] == [int(a.digest, 16) for a in first.approvals]
        assert [1] == [int(a.digest, 16) for a in second.approvals]
        assert second.after is None

    def test_many_expired(self, register: ApprovalRegister, clock: FakeClock) -> None:
        """
        A page whose approvals have all expired is looked behind.
        """
        register.insert(request_of(1, seconds=9999))
        clock.advance(1)
        for number in range(2, 6):
            register.insert(request_of(number))
        clock.advance(HOUR)

        page = register.find(ApprovalQuery(states=frozenset({S.PENDING}), limit=1))

        assert [ONE] == [approval.approval_id for approval in page.approvals]


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
        self, register: ApprovalRegister, store: ApprovalStore, state: ApprovalState
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
            with pytest.raises(ApprovalTamperedError) as caught:
                register.get(ONE)
            assert {"approval_id": ONE} == caught.value.facts
            with pytest.raises(ApprovalTamperedError):
                reserve(register)

        assert {ONE} == register.tampered
        assert (ONE,) == register.check()
        assert ONE in register.find(ApprovalQuery()).tampered

    def test_swap(self, register: ApprovalRegister, store: ApprovalStore) -> None:
        """
        Two whole records that changed places are both refused.
        """
        for number, state in ((1, S.GRANTED), (2, S.DENIED)):
            bring(register, state, number)
        two = approval_id_of(2)
        records = [store.get(name) or b"" for name in (ONE, two)]
        self.put(store, ONE, records[1])
        self.put(store, two, records[0])

        for name in (ONE, two):
            with pytest.raises(ApprovalTamperedError):
                register.get(name)
        assert {ONE, two} == set(register_of(store).check())

    @pytest.mark.parametrize(
        "mac_of",
        [lambda payload: bytes(32), mac_function(b"another store's key")],
        ids=["none", "foreign"],
    )
    def test_insertion(
        self, store: ApprovalStore, mac_of: Callable[[bytes], bytes]
    ) -> None:
        """
        A record that we never wrote, though it is well made, is refused.
        """
        granted = approval_of(1, state=S.GRANTED)
        self.put(store, ONE, encode_approval(granted, mac_of), state=S.GRANTED)

        with pytest.raises(ApprovalTamperedError):
            reserve(register_of(store))

    def test_index_alone(
        self, register: ApprovalRegister, store: ApprovalStore
    ) -> None:
        """
        What the index says of a record is never believed, and a lie is found.
        """
        bring(register, S.CONSUMED)
        self.put(store, ONE, store.get(ONE) or b"", state=S.GRANTED)

        page = register.find(ApprovalQuery(states=frozenset({S.GRANTED})))

        assert () == page.approvals
        with pytest.raises(ConflictError):
            reserve(register)
        assert S.CONSUMED is register.get(ONE).state

    def test_hidden_by_the_index(self, store: ApprovalStore) -> None:
        """
        A sound record whose index facts are not its own is found by the check.
        """
        record = change_of(approval_of(1)).record
        self.put(store, ONE, record, requester="bob")

        assert (ONE,) == register_of(store).check()

    def test_index_that_refuses(
        self, register: ApprovalRegister, store: ApprovalStore
    ) -> None:
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

    def test_sound(self, register: ApprovalRegister, clock: FakeClock) -> None:
        """
        No honest record is called tampered, whatever happened to it.
        """
        for number, state in enumerate(sorted(S), 1):
            bring(register, state, number)
            clock.advance(400)
        clock.step(-HOUR)

        assert () == register.check()
        assert () == register.find(ApprovalQuery()).tampered
