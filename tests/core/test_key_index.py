# SPDX-License-Identifier: MIT
"""Tests of the index that the key stores share, against a list that is searched."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hsm_core._internal.documents import read_index
from hsm_core._internal.stores.index import KeyIndex
from hsm_core.algorithms import Algorithm
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.protocols import IndexEntry, IndexQuery
from tests.core.key_support import key_id_of, operation_of

NUMBERS = st.integers(0, 8)
NAMES = st.sampled_from(["", "a", "b", "c"])
TAGS = st.frozensets(st.sampled_from(["x", "y", "z"]))
ALGORITHMS = st.sampled_from([Algorithm.AES_256_GCM, Algorithm.EC_P256])
STATES = st.sampled_from([KeyState.ACTIVE, KeyState.REVOKED, KeyState.DESTROYED])


@st.composite
def entries(draw: st.DrawFn) -> IndexEntry:
    """Draw an entry, now and then that of an unreadable document."""
    key_id = key_id_of(draw(NUMBERS))
    if draw(st.integers(0, 9)) == 0:
        return read_index(key_id, b"")
    return IndexEntry(
        key_id=key_id,
        created_at=draw(st.integers(0, 3)),
        name=draw(NAMES),
        algorithm=draw(ALGORITHMS).value,
        state=draw(STATES).value,
        tags=draw(TAGS),
        generation=draw(st.integers(1, 3)),
        operations=tuple(
            operation_of(n) for n in draw(st.sets(st.integers(0, 5), max_size=3))
        ),
    )


def matches(entry: IndexEntry, wanted: KeyFilter) -> bool:
    """Return whether a filter lets an entry through, in the plainest way."""
    if wanted.state is None:
        if entry.state == KeyState.DESTROYED:
            return False
    elif entry.state != wanted.state:
        return False
    if wanted.algorithm is not None and entry.algorithm != wanted.algorithm:
        return False
    return set(wanted.tags) <= entry.tags


class IndexMachine(RuleBasedStateMachine):
    """An index and a dictionary that are told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.index = KeyIndex()
        self.model: dict[KeyId, IndexEntry] = {}

    @rule(entry=entries())
    def put(self, entry: IndexEntry) -> None:
        """Add or replace a key."""
        self.index.put(entry)
        self.model[entry.key_id] = entry

    @rule(
        algorithm=st.none() | ALGORITHMS,
        state=st.none() | STATES,
        tags=st.lists(st.sampled_from(["x", "y", "absent"]), max_size=2),
        limit=st.integers(0, 5),
        offset=st.integers(0, 10),
        after=st.none() | st.tuples(st.integers(0, 4), NUMBERS.map(key_id_of)),
    )
    def find(
        self,
        algorithm: Algorithm | None,
        state: KeyState | None,
        tags: list[str],
        limit: int,
        offset: int,
        after: tuple[int, str] | None,
    ) -> None:
        """Ask both for a page."""
        wanted = KeyFilter(algorithm=algorithm, state=state, tags=tuple(tags))
        found = self.index.find(
            IndexQuery(filter=wanted, limit=limit, offset=offset, after=after)
        )
        all_of_them = sorted(
            (entry for entry in self.model.values() if matches(entry, wanted)),
            key=lambda entry: (entry.created_at, entry.key_id),
            reverse=True,
        )
        behind = [
            entry
            for entry in all_of_them
            if after is None or (entry.created_at, entry.key_id) < after
        ]

        assert len(all_of_them) == found.total
        shown = [(entry.created_at, entry.key_id) for entry in behind]
        assert shown[offset : offset + limit] == list(found.keys)

    @invariant()
    def every_key_by_id(self) -> None:
        """Every key is found by its id, and listed once, destroyed or not."""
        assert sorted(self.model) == sorted(self.index.key_ids())
        for key_id, entry in self.model.items():
            assert key_id in self.index
            assert entry == self.index.entry(key_id)

    @invariant()
    def names_belong_to_their_keys(self) -> None:
        """What a name finds has that name and is not destroyed."""
        for name in "abc":
            found = self.index.entry(name)
            if found is not None:
                assert (name, False) == (found.name, found.state == KeyState.DESTROYED)
                assert self.model[found.key_id] == found

    @invariant()
    def operations_belong_to_their_keys(self) -> None:
        """What an operation id finds is a key whose document remembers it."""
        for number in range(6):
            mark = self.index.find_operation(operation_of(number))
            if mark is not None:
                assert mark.key_id is not None
                remembered = self.model[mark.key_id].operations
                assert operation_of(number) in remembered


IndexMachine.TestCase.settings = settings(max_examples=60, deadline=None)
TestIndexMachine = IndexMachine.TestCase


@given(entries(), entries())
def test_first_claim_holds(one: IndexEntry, other: IndexEntry) -> None:
    """
    Of two keys that claim one name, which only an attacker brings about, one has it.
    """
    one = replace(one, key_id=key_id_of(1), name="a", state="active")
    other = replace(other, key_id=key_id_of(2), name="a", state="active")
    index = KeyIndex()
    index.put(one)
    index.put(other)

    assert one == index.entry("a")


def test_id_before_name() -> None:
    """
    A reference that is the id of one key and the name of another means the id.
    """
    index = KeyIndex()
    one = read_index(key_id_of(1), b"")
    index.put(one)
    index.put(replace(one, key_id=key_id_of(2), name=key_id_of(1), state="active"))

    assert one == index.entry(key_id_of(1))
