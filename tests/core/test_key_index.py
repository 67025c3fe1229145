# SPDX-License-Identifier: MIT
"""Tests of the index that the key stores share, against a list that is searched."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hsm_core._internal.keyring.documents import read_index
from hsm_core._internal.stores.index import KeyIndex
from hsm_core.algorithms import Algorithm
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.protocols import IndexEntry, IndexQuery, KeyDigest, bucket_of
from tests.core.key_support import key_id_of, operation_of

NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 1 << 52, (1 << 52) + 1, 5 << 52, 4000 << 52])
"""Numbers of keys; those from 2**52 on are in other buckets than 0."""
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
        self.names: dict[str, list[KeyId]] = {}
        self.operations: dict[str, list[KeyId]] = {}

    @rule(entry=entries())
    def put(self, entry: IndexEntry) -> None:
        """Add or replace a key."""
        self.index.put(entry)
        self.model[entry.key_id] = entry
        self.note(entry.key_id, entry)

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        """Forget a key, if it is there."""
        key_id = key_id_of(number)
        self.index.remove(key_id)
        self.model.pop(key_id, None)
        self.note(key_id, None)

    @rule(found=st.lists(entries(), max_size=8))
    def replace(self, found: list[IndexEntry]) -> None:
        """Take other entries in place of all."""
        self.index.replace(found)
        self.model = {entry.key_id: entry for entry in found}
        self.names.clear()
        self.operations.clear()
        for key_id, entry in self.model.items():
            self.note(key_id, entry)

    @rule()
    def reload(self) -> None:
        """Fill a new index with the entries of this one."""
        self.replace(self.index.entries())

    def note(self, key_id: KeyId, entry: IndexEntry | None) -> None:
        """Keep who claims what, in the order of the claims."""
        name = claimed(entry) if entry else set()
        operations = set(entry.operations) if entry else set()
        for claims, now in ((self.names, name), (self.operations, operations)):
            for text in {*claims, *now}:
                claimants = claims.setdefault(text, [])
                if text not in now and key_id in claimants:
                    claimants.remove(key_id)
                elif text in now and key_id not in claimants:
                    claimants.append(key_id)

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
            assert self.index.knows(key_id)
            assert entry == self.index.entry(key_id)

    @invariant()
    def every_key_in_its_bucket(self) -> None:
        """The digests of all buckets are those of all keys, each in its own bucket."""
        expected = {
            KeyDigest(entry.key_id, entry.generation, entry.digest)
            for entry in self.model.values()
        }
        buckets = {bucket_of(entry.key_id) for entry in self.model.values()}
        found = [d for bucket in buckets for d in self.index.digests(bucket)]

        assert expected == set(found) == set(self.index.digests(None))
        assert len(expected) == len(found) == len(self.index.entries())
        assert [] == list(self.index.digests(4095))

    @invariant()
    def first_claimant_has_the_name(self) -> None:
        """A name finds the living key that has claimed it longest."""
        for name in "abc":
            claimants = self.names.get(name, [])
            found = self.index.entry(name)
            assert (found.key_id if found else None) == next(iter(claimants), None)

    @invariant()
    def first_claimant_has_the_operation(self) -> None:
        """An operation id finds the key that has claimed it longest."""
        for number in range(6):
            claimants = self.operations.get(operation_of(number), [])
            mark = self.index.find_operation(operation_of(number))
            assert (mark.key_id if mark else None) == next(iter(claimants), None)


def claimed(entry: IndexEntry) -> set[str]:
    """Return the name that a key claims, if any."""
    return {entry.name} - {""} if entry.state != KeyState.DESTROYED else set()


IndexMachine.TestCase.settings = settings(max_examples=60, deadline=None)
TestIndexMachine = IndexMachine.TestCase
