# SPDX-License-Identifier: MIT
"""What every `ApprovalStore` promises, run over every implementation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsm_core._internal.approvals.records import entry_of
from hsm_core._internal.stores.guard import guarded
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core.errors import (
    GenerationConflictError,
    InputSizeError,
    InvalidInputError,
    OutcomeUnknownError,
    StoreLockedError,
    StoreUnavailableError,
)
from hsm_core.model import Approval, ApprovalState
from hsm_core.protocols import ApprovalChange, ApprovalQuery, ApprovalStore
from tests.core.approval_support import (
    DURABLE,
    EXCLUSIVE,
    ApprovalRow,
    approval_id_of,
    approval_of,
    change_of,
    digest_of,
)

S = ApprovalState


def numbers(store: ApprovalStore, query: ApprovalQuery) -> list[int]:
    """Return which approvals a page has, by their numbers."""
    known = {approval_id_of(number): number for number in range(200)}
    return [known[entry.approval_id] for entry in store.find(query)]


def after(approval: Approval, state: ApprovalState) -> Approval:
    """Return an approval one step later."""
    return msgspec.structs.replace(
        approval, state=state, generation=approval.generation + 1
    )


class TestRecords:
    def test_commit_and_get(self, store: ApprovalStore) -> None:
        """
        What was committed last is what is there, byte for byte.
        """
        first, other = approval_of(1), approval_of(2)
        second = after(first, S.GRANTED)
        for approval in (first, other, second):
            store.commit(change_of(approval))

        assert change_of(second).record == store.get(approval_id_of(1))
        assert change_of(other).record == store.get(approval_id_of(2))
        assert store.get(approval_id_of(3)) is None
        assert {approval_id_of(1), approval_id_of(2)} == set(store.approval_ids())
        assert store.available

    def test_wrong_generation(self, store: ApprovalStore) -> None:
        """
        A change of what is not at its generation changes nothing.
        """
        first = approval_of(1)
        second = after(first, S.GRANTED)
        with pytest.raises(GenerationConflictError):
            store.commit(change_of(second))
        store.commit(change_of(first))
        store.commit(change_of(second))
        for stale in (first, second, after(after(second, S.DENIED), S.DENIED)):
            with pytest.raises(GenerationConflictError):
                store.commit(change_of(stale))

        assert change_of(second).record == store.get(approval_id_of(1))
        assert [entry_of(second)] == store.find(ApprovalQuery())

    def test_one_of_many(self, store: ApprovalStore) -> None:
        """
        Of many changes on one generation one is made.
        """
        crowd = 16
        barrier = threading.Barrier(crowd)
        first = approval_of(1)
        store.commit(change_of(first))

        def change(number: int) -> int:
            mine = msgspec.structs.replace(
                after(first, S.RESERVED), operation_id=f"op-{number}"
            )
            barrier.wait()
            try:
                store.commit(change_of(mine))
            except GenerationConflictError:
                return 0
            assert change_of(mine).record == store.get(approval_id_of(1))
            return 1

        with ThreadPoolExecutor(crowd) as pool:
            assert 1 == sum(pool.map(change, range(crowd)))

    @pytest.mark.parametrize(
        "name", ["", "..", "../x", "a/b", "ABCDEF01-0000-4000-8000-000000000001"]
    )
    def test_names(self, store: ApprovalStore, name: str) -> None:
        """
        What is no approval's id is never written and never found.
        """
        change = change_of(approval_of(1, approval_id=name))

        with pytest.raises(InvalidInputError):
            store.commit(change)
        assert store.get(name) is None
        store.remove([name])
        assert [] == list(store.approval_ids())

    def test_odd_changes(self, store: ApprovalStore) -> None:
        """
        A record that is too long, or skips a generation, is refused.
        """
        change = change_of(approval_of(1))
        with pytest.raises(InputSizeError):
            store.commit(ApprovalChange(change.entry, bytes(65_537), 0))
        with pytest.raises(InvalidInputError):
            store.commit(ApprovalChange(change.entry, b"", 1))

        store.commit(ApprovalChange(change.entry, bytes(65_536), 0))
        assert bytes(65_536) == store.get(approval_id_of(1))

    def test_remove(self, store: ApprovalStore) -> None:
        """
        What was removed is gone from everywhere, and may be made anew.
        """
        for number in (1, 2, 3):
            store.commit(change_of(approval_of(number)))

        store.remove([approval_id_of(number) for number in (1, 3, 4)])
        store.remove([])

        assert store.get(approval_id_of(1)) is None
        assert [2] == numbers(store, ApprovalQuery())
        assert [approval_id_of(2)] == list(store.approval_ids())
        store.commit(change_of(approval_of(1)))
        assert [2, 1] == numbers(store, ApprovalQuery())


class TestFind:
    def test_conditions(self, store: ApprovalStore) -> None:
        """
        All conditions hold for what is found, and the newest comes first.
        """
        for number in range(1, 13):
            facts = {
                "requester": ("ann", "bob")[number % 2],
                "digest": digest_of(number % 3),
                "state": list(S)[number % 7],
            }
            store.commit(change_of(approval_of(number, **facts)))
        pages = {
            "all": ApprovalQuery(),
            "bob": ApprovalQuery(requester="bob"),
            "digest": ApprovalQuery(digest=digest_of(1)),
            "states": ApprovalQuery(states=frozenset({list(S)[1], list(S)[2]})),
            "bob, state": ApprovalQuery(
                requester="bob", states=frozenset({list(S)[1]})
            ),
            "bob, digest": ApprovalQuery(requester="bob", digest=digest_of(1)),
            "none": ApprovalQuery(requester="carl"),
            "two": ApprovalQuery(limit=2),
        }

        assert {
            "all": [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
            "bob": [11, 9, 7, 5, 3, 1],
            "digest": [10, 7, 4, 1],
            "states": [9, 8, 2, 1],
            "bob, state": [1],
            "bob, digest": [7, 1],
            "none": [],
            "two": [12, 11],
        } == {name: numbers(store, query) for name, query in pages.items()}

    def test_pages(self, store: ApprovalStore) -> None:
        """
        Pages show everything once, also approvals of one instant, whatever is added.
        """
        for number in range(1, 8):
            store.commit(change_of(approval_of(number, created_at=number // 3)))
        seen: list[str] = []
        query = ApprovalQuery(limit=2)
        while entries := store.find(query):
            seen += [entry.approval_id for entry in entries]
            last = entries[-1]
            query = ApprovalQuery(limit=2, after=(last.created_at, last.approval_id))
            store.commit(change_of(approval_of(100 + len(seen), created_at=9)))

        assert [approval_id_of(number) for number in (7, 6, 5, 4, 3, 2, 1)] == seen

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_like_a_list(self, store: ApprovalStore, data: st.DataObject) -> None:
        """
        After any changes each query gives what a sorted list of all would give.
        """
        store.remove(store.approval_ids())
        model: dict[str, Approval] = {}
        for number in data.draw(st.lists(st.integers(1, 6), max_size=12)):
            found = model.get(approval_id_of(number))
            if found is None:
                made = approval_of(
                    number,
                    created_at=data.draw(st.integers(0, 2)),
                    requester=data.draw(st.sampled_from(["ann", "bob"])),
                    digest=digest_of(data.draw(st.integers(0, 1))),
                )
            elif data.draw(st.booleans()):
                store.remove([found.approval_id])
                del model[found.approval_id]
                continue
            else:
                made = after(found, data.draw(st.sampled_from(S)))
            store.commit(change_of(made))
            model[made.approval_id] = made
        query = ApprovalQuery(
            states=data.draw(st.frozensets(st.sampled_from(S), max_size=2)),
            requester=data.draw(st.sampled_from(["", "ann", "bob"])),
            digest=data.draw(st.sampled_from(["", digest_of(0)])),
            limit=data.draw(st.integers(1, 7)),
            after=data.draw(
                st.none() | st.tuples(st.integers(0, 2), st.just(approval_id_of(3)))
            ),
        )

        wanted = [
            entry_of(approval)
            for approval in sorted(
                model.values(),
                key=lambda a: (a.created_at, a.approval_id),
                reverse=True,
            )
            if (not query.states or approval.state in query.states)
            and query.requester in {"", approval.requester}
            and query.digest in {"", approval.digest}
            and (
                query.after is None
                or (approval.created_at, approval.approval_id) < query.after
            )
        ]
        assert wanted[: query.limit] == store.find(query)

    def test_moving(self, store: ApprovalStore) -> None:
        """
        What moves between states that are asked for is always found, and once.
        """
        approval = approval_of(1, state=S.GRANTED)
        store.commit(change_of(approval))
        query = ApprovalQuery(states=frozenset({S.GRANTED, S.RESERVED}))
        is_over = threading.Event()

        def look() -> set[int]:
            sizes = {len(store.find(query))}
            while not is_over.is_set():
                sizes.add(len(store.find(query)))
            return sizes

        with ThreadPoolExecutor(2) as pool:
            looking = [pool.submit(look) for _ in range(2)]
            try:
                for number in range(200):
                    approval = after(approval, (S.RESERVED, S.GRANTED)[number % 2])
                    store.commit(change_of(approval))
            finally:
                is_over.set()
            assert [{1}, {1}] == [each.result() for each in looking]


class TestLife:
    @pytest.mark.parametrize("row", DURABLE, ids=str)
    def test_again(self, row: ApprovalRow, tmp_path: Path) -> None:
        """
        A store that is opened again has what it had, and its order.
        """
        store = row.open(tmp_path)
        for number in (3, 1, 2):
            store.commit(change_of(approval_of(number)))
        store.commit(change_of(after(approval_of(1), S.GRANTED)))
        store.remove([approval_id_of(2)])
        before = store.find(ApprovalQuery())
        store.close()

        store = row.open(tmp_path)

        assert before == store.find(ApprovalQuery())
        assert [S.PENDING, S.GRANTED] == [entry.state for entry in before]
        assert change_of(after(approval_of(1), S.GRANTED)).record == store.get(
            before[1].approval_id
        )
        store.close()

    @pytest.mark.parametrize("row", EXCLUSIVE, ids=str)
    def test_one_at_a_time(self, row: ApprovalRow, tmp_path: Path) -> None:
        """
        A store that is open can't be opened a second time.
        """
        store = row.open(tmp_path)
        store.commit(change_of(approval_of(1)))

        with pytest.raises(StoreLockedError):
            row.open(tmp_path)

        assert [1] == numbers(store, ApprovalQuery())
        store.close()

    def test_closed(self, row: ApprovalRow, tmp_path: Path) -> None:
        """
        A closed store answers nothing more and can't be reopened.
        """
        store = row.open(tmp_path)
        store.commit(change_of(approval_of(1)))
        store.close()
        store.close()

        assert not store.available
        for call in (
            lambda: store.get(approval_id_of(1)),
            lambda: store.commit(change_of(approval_of(2))),
            lambda: store.find(ApprovalQuery()),
            store.approval_ids,
            lambda: store.remove([approval_id_of(1)]),
            store.reopen,
        ):
            with pytest.raises(StoreUnavailableError):
                call()

    def test_reopen_of_a_sound_store(self, store: ApprovalStore) -> None:
        """
        Where nothing failed, reopening changes nothing.
        """
        store.commit(change_of(approval_of(1)))

        store.reopen()

        assert [1] == numbers(store, ApprovalQuery())


class Broken(MemoryApprovalStore):
    """A store that raises what no store may."""

    @property
    def available(self) -> bool:
        """Fail."""
        raise ZeroDivisionError

    def commit(self, change: ApprovalChange, /) -> None:
        """Make the change, and fail."""
        super().commit(change)
        raise ZeroDivisionError

    def get(self, approval_id: str, /) -> bytes | None:
        """Fail."""
        raise ZeroDivisionError


def test_guard() -> None:
    """
    A foreign exception leaves a guarded store as one of ours, or is no "yes".
    """
    store = guarded(Broken())

    assert not store.available

    with pytest.raises(OutcomeUnknownError) as caught:
        store.commit(change_of(approval_of(1)))
    assert {"approval_id": approval_id_of(1)} == caught.value.facts
    with pytest.raises(StoreUnavailableError):
        store.get(approval_id_of(1))
