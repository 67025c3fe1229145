# SPDX-License-Identifier: MIT
"""What every `KeyStore` promises, run over every implementation."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from hsm_core._internal.keyring.documents import encode_document
from hsm_core._internal.stores.guard import guarded
from hsm_core._internal.stores.index import KeyIndex
from hsm_core._internal.stores.keys import RecordKeyStore
from hsm_core._internal.stores.memory.records import MemoryKeyStore, MemoryRecords
from hsm_core.algorithms import Algorithm
from hsm_core.errors import (
    ConflictError,
    GenerationConflictError,
    HSMError,
    InvalidInputError,
    KeyNotFoundError,
    NameTakenError,
    OperationAbortedError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.model import KeyFilter, KeyId, KeyState, Role
from hsm_core.operations import VerifyStore
from hsm_core.protocols import (
    BUCKETS,
    HSM,
    AccountChange,
    IndexQuery,
    KeyChange,
    KeyClause,
    KeyDigest,
    KeyScope,
    KeyStore,
    KeyTerms,
    OperationMark,
    StoreAccount,
)
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.contract.store_rows import DURABLE, INDEXES, ROWS, StoreRow
from tests.core.key_support import (
    RING,
    change_of,
    document_of,
    everything,
    key_id_of,
    operation_of,
    page,
)


@pytest.fixture(params=ROWS, ids=str)
def row(request: pytest.FixtureRequest) -> StoreRow:
    """Give one implementation after the other."""
    found: StoreRow = request.param
    return found


@pytest.fixture
def store(row: StoreRow, tmp_path: Path) -> Iterator[KeyStore]:
    """Give an open, empty store."""
    opened = row.open(tmp_path).keys
    yield opened
    opened.close()


def create(store: KeyStore, number: int, **facts: object) -> KeyChange:
    """Commit a new key with one blob, and return the change."""
    operation_id = operation_of(number)
    document = document_of(number, operations=(operation_id,), **facts)  # type: ignore[arg-type]
    change = change_of(document, operation_id, blobs={1: b"blob-%d" % number})
    store.commit(change)
    return change


class TestCommit:
    def test_create(self, store: KeyStore) -> None:
        """
        A new key can be read, found and counted at once.
        """
        change = create(store, 1, name="first")

        assert change.document == store.get(key_id_of(1)).document
        assert b"blob-1" == store.get_blob(key_id_of(1), 1)
        assert change.entry == store.entry(key_id_of(1)) == store.entry("first")
        assert [key_id_of(1)] == page(store)

    def test_create_ahead(self, store: KeyStore) -> None:
        """
        What was staged is no key before its commit, and afterwards is what was staged.
        """
        change = change_of(document_of(1), operation_of(1), blobs={1: b"sealed"})
        key_id = change.entry.key_id
        store.stage(key_id, change.document, change.blobs)

        with pytest.raises(KeyNotFoundError):
            store.get(key_id)
        assert store.get_blob(key_id, 1) is None
        assert [] == list(store.scan())
        store.commit(change)
        store.discard_staged(key_id)

        assert change.document == store.get(key_id).document
        assert b"sealed" == store.get_blob(key_id, 1)

    def test_staged_and_never_committed(self, store: KeyStore) -> None:
        """
        It is gone when it is discarded, and another key of the id is as committed.
        """
        change = change_of(document_of(1), operation_of(1), blobs={1: b"sealed"})
        key_id = change.entry.key_id
        store.stage(key_id, b"another document", {1: b"another", 2: b"more"})
        store.commit(change)

        assert change.document == store.get(key_id).document
        assert b"sealed" == store.get_blob(key_id, 1)
        assert store.get_blob(key_id, 2) is None
        store.stage(key_id_of(2), change.document, change.blobs)
        store.discard_staged(key_id_of(2))
        store.discard_staged(key_id_of(2))
        assert store.get_blob(key_id_of(2), 1) is None

    def test_change(self, store: KeyStore) -> None:
        """
        A change replaces the document, adds blobs and keeps the old ones.
        """
        create(store, 1)
        document = document_of(1, generation=2, versions=2)
        change = change_of(document, operation_of(2), blobs={2: b"second"})

        store.commit(change)

        assert change.document == store.get(key_id_of(1)).document
        assert b"blob-1" == store.get_blob(key_id_of(1), 1)
        assert b"second" == store.get_blob(key_id_of(1), 2)

    def test_removed_blobs(self, store: KeyStore) -> None:
        """
        Blobs that a change removes are gone; removing what is not there is no error.
        """
        create(store, 1)
        document = document_of(1, generation=2, state=KeyState.DESTROYED)

        store.commit(change_of(document, operation_of(2), removed_blobs=(1, 7)))

        assert store.get_blob(key_id_of(1), 1) is None

    @pytest.mark.parametrize("generation", [1, 3, 4])
    def test_wrong_generation(self, store: KeyStore, generation: int) -> None:
        """
        A change prepared on any generation but the present one changes nothing.
        """
        create(store, 1)
        before = everything(store)
        document = document_of(1, generation=generation, versions=2)

        with pytest.raises(GenerationConflictError):
            store.commit(change_of(document, operation_of(2), blobs={2: b"x"}))

        assert before == everything(store)

    def test_change_of_no_key(self, store: KeyStore) -> None:
        """
        A key that is not there can't be changed.
        """
        with pytest.raises(GenerationConflictError):
            store.commit(change_of(document_of(1, generation=2), operation_of(1)))

        assert {} == everything(store)

    def test_name_taken(self, store: KeyStore) -> None:
        """
        Two living keys can't have one name.
        """
        create(store, 1, name="pay")

        with pytest.raises(NameTakenError):
            create(store, 2, name="pay")

        assert [key_id_of(1)] == page(store)

    def test_name_after_destruction(self, store: KeyStore) -> None:
        """
        A destroyed key gives its name back.
        """
        create(store, 1, name="pay")
        gone = document_of(1, generation=2, state=KeyState.DESTROYED, name="pay")
        store.commit(change_of(gone, operation_of(7), removed_blobs=(1,)))

        create(store, 2, name="pay")

        found = store.entry("pay")
        assert found is not None
        assert key_id_of(2) == found.key_id

    def test_name_changed(self, store: KeyStore) -> None:
        """
        A key that gets another name gives the old one back.
        """
        create(store, 1, name="old")
        document = document_of(1, generation=2, name="new")
        store.commit(change_of(document, operation_of(7)))

        create(store, 2, name="old")

        found = store.entry("new"), store.entry("old")
        assert [key_id_of(1), key_id_of(2)] == [e.key_id for e in found if e]

    def test_name_given_up(self, store: KeyStore) -> None:
        """
        A key may give its name up; another takes it, and the first can't have it back.
        """
        create(store, 1, name="pay")
        store.commit(change_of(document_of(1, generation=2), operation_of(7)))
        create(store, 2, name="pay")

        with pytest.raises(NameTakenError):
            store.commit(
                change_of(document_of(1, generation=3, name="pay"), operation_of(8))
            )

        found = store.entry("pay")
        assert found is not None
        assert key_id_of(2) == found.key_id

    def test_many_want_one_name(self, store: KeyStore) -> None:
        """
        Of many keys that are renamed at once to one name, one gets it.
        """
        for number in range(1, 9):
            create(store, number, name=f"old-{number}")

        def rename(number: int) -> bool:
            document = document_of(number, generation=2, name="pay")
            try:
                store.commit(change_of(document, operation_of(100 + number)))
            except NameTakenError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(rename, range(1, 9)))

        found = store.entry("pay")
        assert found is not None
        assert [key_id_of(done.index(True) + 1)] == [found.key_id]
        assert 1 == done.count(True)
        kept = [store.entry(f"old-{number}") for number in range(1, 9)]
        assert [not won for won in done] == [entry is not None for entry in kept]

    @pytest.mark.parametrize("row", DURABLE, ids=str)
    def test_names_after_opening_again(self, row: StoreRow, tmp_path: Path) -> None:
        """
        What was renamed is found by its new name alone, also by a store opened anew.
        """
        opened = row.open(tmp_path).keys
        create(opened, 1, name="old")
        create(opened, 2, name="other")
        document = document_of(1, generation=2, name="new")
        opened.commit(change_of(document, operation_of(7)))
        document = document_of(2, generation=2, name="old")
        opened.commit(change_of(document, operation_of(8)))
        opened.close()

        again = row.open(tmp_path).keys
        found = [again.entry(name) for name in ("old", "new", "other")]
        again.rebuild()
        rebuilt = [again.entry(name) for name in ("old", "new", "other")]
        again.close()

        assert found == rebuilt
        assert [key_id_of(2), key_id_of(1), None] == [e and e.key_id for e in found]

    def test_operation_used_before(self, store: KeyStore) -> None:
        """
        An operation id that stands in one document can't change another key.
        """
        create(store, 1)
        document = document_of(2, operations=(operation_of(1),))

        with pytest.raises(OperationAbortedError):
            store.commit(change_of(document, operation_of(1)))

        assert [key_id_of(1)] == page(store)

    def test_operation_aborted(self, store: KeyStore) -> None:
        """
        A late commit of an aborted operation fails.
        """
        store.abort(operation_of(1))

        with pytest.raises(OperationAbortedError):
            create(store, 1)

        assert {} == everything(store)

    def test_blobs_are_immutable(self, store: KeyStore) -> None:
        """
        A blob that a document names can't be replaced, and nothing else changes.
        """
        create(store, 1)
        before = everything(store)
        document = document_of(1, generation=2)

        with pytest.raises(ConflictError, match="can't be replaced"):
            store.commit(change_of(document, operation_of(2), blobs={1: b"other"}))

        assert before == everything(store)

    @pytest.mark.parametrize(
        "key_id",
        [
            "",
            "../../etc/passwd",
            "00000000-0000-4000-8000-00000000000g",
            "0000000A-0000-4000-8000-000000000001",
            "00000000-0000-4000-8000-000000000001\n",
            "00000000-0000-4000-8000-000000000001\0",
            "a" * 300,
            "\uff10\uff10000000-0000-4000-8000-000000000001",
        ],
    )
    def test_key_id_in_no_canonical_form(self, store: KeyStore, key_id: str) -> None:
        """
        What is no canonical UUID is refused, and never found.
        """
        change = change_of(document_of(1), operation_of(1))
        entry = replace(change.entry, key_id=KeyId(key_id))

        with pytest.raises(InvalidInputError):
            store.commit(replace(change, entry=entry))
        with pytest.raises(KeyNotFoundError):
            store.get(KeyId(key_id))
        with pytest.raises(InvalidInputError):
            store.discard_blobs(KeyId(key_id), (1,))
        with pytest.raises(InvalidInputError):
            store.stage(KeyId(key_id), b"", {1: b""})

        assert store.get_blob(KeyId(key_id), 1) is None
        assert store.entry(key_id) is None

    @pytest.mark.parametrize("version", [0, -1, 100_000_000])
    def test_version_out_of_range(self, store: KeyStore, version: int) -> None:
        """
        A version has one to eight digits, written or removed.
        """
        change = change_of(document_of(1), operation_of(1))

        with pytest.raises(InvalidInputError):
            store.commit(replace(change, blobs={version: b""}))
        with pytest.raises(InvalidInputError):
            store.commit(replace(change, removed_blobs=(version,)))
        with pytest.raises(InvalidInputError):
            store.discard_blobs(change.entry.key_id, (1, version))

    def test_many_threads(self, store: KeyStore) -> None:
        """
        Of many changes prepared on one generation exactly one is made.
        """
        create(store, 1)
        barrier = threading.Barrier(8)

        def change(number: int) -> str:
            document = document_of(1, generation=2, operations=(operation_of(number),))
            barrier.wait()
            try:
                store.commit(change_of(document, operation_of(number)))
            except GenerationConflictError:
                return "conflict"
            return "made"

        with ThreadPoolExecutor(8) as pool:
            answers = sorted(pool.map(change, range(10, 18)))

        assert ["conflict"] * 7 + ["made"] == answers

    def test_many_new_keys_at_once(self, store: KeyStore) -> None:
        """
        Keys made by many threads are all there, each once.
        """
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: create(store, number), range(40)))

        assert [key_id_of(n) for n in reversed(range(40))] == page(store)
        assert 40 == len(everything(store))


class TestReading:
    def test_nothing_there(self, store: KeyStore) -> None:
        """
        A key that is not there is not found, in each way of asking.
        """
        with pytest.raises(KeyNotFoundError):
            store.get(key_id_of(1))

        assert store.get_blob(key_id_of(1), 1) is None
        assert store.entry(key_id_of(1)) is None
        assert store.entry("") is None
        assert [] == page(store)

    def test_blob_of_no_version(self, store: KeyStore) -> None:
        """
        A version without blob has none.
        """
        create(store, 1)

        assert store.get_blob(key_id_of(1), 2) is None

    def test_scan_of_a_moving_store(self, store: KeyStore) -> None:
        """
        A walk shows each key that was there when it began, whatever happens meanwhile.
        """
        for number in range(5):
            create(store, number)
        walk = store.scan()
        first = next(walk)
        create(store, 9)
        rest = list(walk)

        ids = {stored.key_id for stored in [first, *rest]} - {key_id_of(9)}

        assert {key_id_of(number) for number in range(5)} == ids


@pytest.mark.parametrize("row", INDEXES, ids=str)
class TestFind:
    @pytest.fixture(autouse=True)
    def keys(self, store: KeyStore) -> None:
        """Put twelve keys into the store, four of them from one microsecond."""
        for number in range(12):
            create(
                store,
                number,
                created_at=1000 + number // 4,
                tags=tuple(t for n, t in ((2, "even"), (3, "third")) if not number % n),
                algorithm=("AES-256-GCM", "EC-P256")[number % 2],
                state=(KeyState.ACTIVE, KeyState.SUSPENDED)[number % 4 == 0],
            )

    def test_order(self, store: KeyStore) -> None:
        """
        The newest key comes first; keys of one instant descend by id.
        """
        assert [key_id_of(number) for number in reversed(range(12))] == page(store)

    @pytest.mark.parametrize("limit", [1, 2, 5, 12, 50])
    def test_offsets(self, store: KeyStore, limit: int) -> None:
        """
        Pages by offset join to the whole, and there is nothing behind it.
        """
        pages = [page(store, limit=limit, offset=n) for n in range(0, 60, limit)]

        assert page(store) == [key_id for one in pages for key_id in one]

    @pytest.mark.parametrize("limit", [1, 2, 5, 12, 50])
    def test_cursor_under_writes(self, store: KeyStore, limit: int) -> None:
        """
        A cursor shows each old key once, while new keys come and old ones change.
        """
        before, seen, after = page(store), [], None
        for number in range(100, 130):
            create(store, number, created_at=5000)
            keys = store.find(
                IndexQuery(filter=KeyFilter(), limit=limit, after=after)
            ).keys
            if not keys:
                break
            after = keys[-1]
            seen += [key_id for _, key_id in keys]

        assert before == [key_id for key_id in seen if key_id in before]
        assert len(set(seen)) == len(seen)

    @pytest.mark.parametrize(
        ("wanted", "numbers"),
        [
            (KeyFilter(algorithm=Algorithm.EC_P256), {1, 3, 5, 7, 9, 11}),
            (KeyFilter(algorithm=Algorithm.ED25519), set()),
            (KeyFilter(state=KeyState.SUSPENDED), {0, 4, 8}),
            (KeyFilter(tags=("even",)), {0, 2, 4, 6, 8, 10}),
            (KeyFilter(tags=("third", "even")), {0, 6}),
            (KeyFilter(tags=("third", "absent")), set()),
            (
                KeyFilter(algorithm=Algorithm.AES_256_GCM, state=KeyState.ACTIVE),
                {2, 6, 10},
            ),
            (
                KeyFilter(
                    algorithm=Algorithm.AES_256_GCM,
                    state=KeyState.ACTIVE,
                    tags=("third",),
                ),
                {6},
            ),
            (KeyFilter(state=KeyState.SUSPENDED, tags=("third",)), {0}),
            (KeyFilter(algorithm=Algorithm.EC_P256, tags=("third",)), {3, 9}),
        ],
    )
    def test_filters(
        self, store: KeyStore, wanted: KeyFilter, numbers: set[int]
    ) -> None:
        """
        All conditions of a filter hold together, and the total is exact on each page.
        """
        expected = [key_id_of(number) for number in sorted(numbers, reverse=True)]
        totals = {
            store.find(IndexQuery(filter=wanted, limit=1, offset=offset)).total
            for offset in range(4)
        }

        assert expected == page(store, wanted=wanted)
        assert expected[1:2] == page(store, wanted=wanted, limit=1, offset=1)
        assert {len(numbers)} == totals

    @pytest.mark.parametrize(
        ("search", "numbers"),
        [
            ("EVE", {0, 2, 4, 6, 8, 10}),
            ("hir", {0, 3, 6, 9}),
            ("Alic", set(range(12))),
            ('even","third', set()),
            ("\u212a", set()),
            ("%", set()),
        ],
        ids=["tag", "middle", "owner", "quotes", "kelvin", "wildcard"],
    )
    def test_search(self, store: KeyStore, search: str, numbers: set[int]) -> None:
        """What is searched for stands in name, owner or one tag, in any ASCII case."""
        wanted = KeyFilter(search=search)
        found = store.find(IndexQuery(filter=wanted, limit=2, offset=1))
        expected = [key_id_of(number) for number in sorted(numbers, reverse=True)]

        assert expected == page(store, wanted=wanted)
        assert (expected[1:3], len(numbers)) == (
            [key_id for _, key_id in found.keys],
            found.total,
        )

    def test_search_by_id(self, store: KeyStore) -> None:
        """An id is found by its beginning, and by nothing in it."""
        wanted = key_id_of(7)

        assert [wanted] == page(store, wanted=KeyFilter(search=wanted.upper()))
        assert [] == page(store, wanted=KeyFilter(search=wanted[1:]))

    def test_search_with_others(self, store: KeyStore) -> None:
        """A search and the other conditions hold together."""
        wanted = KeyFilter(search="third", state=KeyState.SUSPENDED, tags=("even",))

        assert [key_id_of(0)] == page(store, wanted=wanted)

    def test_scope(self, store: KeyStore) -> None:
        """A page shows and counts the keys of a scope alone, in the usual order."""
        named = KeyTerms(tags=frozenset({"even"}))
        third = KeyTerms(tags=frozenset({"third"}))
        scopes = {
            KeyScope(((KeyClause(named),),)): {0, 2, 4, 6, 8, 10},
            KeyScope(((KeyClause(named, third),),)): {2, 4, 8, 10},
            KeyScope(((KeyClause(named), KeyClause(third)),)): {
                0,
                2,
                3,
                4,
                6,
                8,
                9,
                10,
            },
            KeyScope((), (KeyClause(named),)): {1, 3, 5, 7, 9, 11},
            KeyScope(((),)): set(),
            KeyScope(((KeyClause(KeyTerms(owners=frozenset({"bob"}))),),)): set(),
            KeyScope(
                (
                    (KeyClause(KeyTerms(owners=frozenset({"alice"}))),),
                    (KeyClause(KeyTerms(usages=frozenset({"decrypt", "mac"}))),),
                ),
                (KeyClause(KeyTerms(algorithms=frozenset({"EC-P256"}))),),
            ): {0, 2, 4, 6, 8, 10},
        }

        for scope, numbers in scopes.items():
            wanted = [key_id_of(number) for number in sorted(numbers, reverse=True)]
            first = store.find(IndexQuery(filter=KeyFilter(), limit=3, scope=scope))
            shown, last = list(first.keys), first
            while len(last.keys) == 3:
                query = IndexQuery(
                    filter=KeyFilter(), limit=3, after=last.keys[-1], scope=scope
                )
                last = store.find(query)
                shown += last.keys
            skipped = IndexQuery(filter=KeyFilter(), limit=2, offset=1, scope=scope)
            assert wanted == [key_id for _, key_id in shown]
            assert len(wanted) == first.total == last.total
            assert wanted[1:3] == [key_id for _, key_id in store.find(skipped).keys]
            even = IndexQuery(filter=KeyFilter(tags=("even",)), limit=99, scope=scope)
            assert len([n for n in numbers if n % 2 == 0]) == store.find(even).total

    def test_destroyed_keys(self, store: KeyStore) -> None:
        """
        A destroyed key is listed where its state is asked for, and counted there only.
        """
        document = document_of(
            6, generation=2, created_at=1001, state=KeyState.DESTROYED, tags=("even",)
        )
        store.commit(change_of(document, operation_of(77)))
        living, gone, even = (
            store.find(IndexQuery(filter=wanted, limit=100))
            for wanted in (
                KeyFilter(),
                KeyFilter(state=KeyState.DESTROYED),
                KeyFilter(tags=("even",)),
            )
        )

        assert (11, 1, 5) == (living.total, gone.total, even.total)
        assert [key_id_of(6)] == [key_id for _, key_id in gone.keys]
        assert key_id_of(6) not in {key for _, key in living.keys + even.keys}

    def test_filter_follows_changes(self, store: KeyStore) -> None:
        """
        A key that changes its state or tags moves from one listing to the other.
        """
        document = document_of(
            0, generation=2, created_at=1000, state=KeyState.REVOKED, tags=("new",)
        )
        store.commit(change_of(document, operation_of(77)))

        assert key_id_of(0) not in page(
            store, wanted=KeyFilter(state=KeyState.SUSPENDED)
        )
        assert [key_id_of(0)] == page(store, wanted=KeyFilter(state=KeyState.REVOKED))
        assert [key_id_of(0)] == page(store, wanted=KeyFilter(tags=("new",)))
        assert [key_id_of(6)] == page(store, wanted=KeyFilter(tags=("even", "third")))


class TestOperations:
    def test_found_in_document(self, store: KeyStore) -> None:
        """
        An operation is found by its id as long as the document remembers it.
        """
        create(store, 1)
        found = store.find_operation(operation_of(1))
        document = document_of(1, generation=2, operations=(operation_of(2),))
        store.commit(change_of(document, operation_of(2)))

        assert OperationMark(key_id=key_id_of(1), aborted=False) == found
        assert store.find_operation(operation_of(1)) is None
        assert store.find_operation(operation_of(2)) is not None

    def test_aborted(self, store: KeyStore) -> None:
        """
        An aborted operation is found as such, and may be aborted again.
        """
        store.abort(operation_of(1))
        store.abort(operation_of(1))

        found = store.find_operation(operation_of(1))

        assert OperationMark(key_id=None, aborted=True) == found

    def test_abort_of_a_committed_operation(self, store: KeyStore) -> None:
        """
        What was committed can't be aborted.
        """
        create(store, 1)

        with pytest.raises(ConflictError):
            store.abort(operation_of(1))

        assert OperationMark(
            key_id=key_id_of(1), aborted=False
        ) == store.find_operation(operation_of(1))

    @pytest.mark.parametrize("operation_id", ["", "..", "../x", "A", "a" * 65, ".tmp-"])
    def test_impossible_ids(self, store: KeyStore, operation_id: str) -> None:
        """
        An id that could be a path or a hidden file is refused.
        """
        with pytest.raises(InvalidInputError):
            store.abort(operation_id)
        with pytest.raises(InvalidInputError):
            store.commit(
                replace(change_of(document_of(1), "a"), operation_id=operation_id)
            )

        assert store.find_operation(operation_id) is None


class TestMeta:
    def test_values(self, store: KeyStore) -> None:
        """
        A small value is what was written last; each name has its own.
        """
        store.write_meta("ring", b"old")
        store.write_meta("ring", b"new")
        store.write_meta("other", b"")

        assert b"new" == store.read_meta("ring")
        assert b"" == store.read_meta("other")
        assert store.read_meta("absent") is None

    @pytest.mark.parametrize("name", ["", ".", "..", "../lock", "a/b", ".tmp-1", "A"])
    def test_impossible_names(self, store: KeyStore, name: str) -> None:
        """
        A name that could be a path is refused.
        """
        with pytest.raises(InvalidInputError):
            store.write_meta(name, b"")
        with pytest.raises(InvalidInputError):
            store.read_meta(name)


class TestIndexMaintenance:
    def test_digests(self, store: KeyStore) -> None:
        """
        The index knows generation and digest of each key, and knows them by bucket.
        """
        numbers = [1, 2, 1 << 52, (1 << 52) + 1, 4095 << 52]
        changes = [create(store, number, created_at=1) for number in numbers]
        edit = change_of(document_of(1, generation=2), operation_of(7))
        store.commit(edit)
        expected = {
            KeyDigest(
                change.entry.key_id,
                change.entry.generation,
                hashlib.sha256(change.document).hexdigest(),
            )
            for change in [edit, *changes[1:]]
        }

        by_bucket = {bucket: set(store.digests(bucket)) for bucket in (0, 1, 2, 4095)}

        assert expected == set(store.digests())
        assert expected == set().union(*by_bucket.values())
        assert [2, 2, 0, 1] == [len(found) for found in by_bucket.values()]

    def test_digests_of_a_moving_store(self, store: KeyStore) -> None:
        """
        What was there when a walk over the index began comes once, whatever happens.
        """
        for number in range(5):
            create(store, number)
        walk = store.digests()
        first = next(walk)
        create(store, 9)
        found = [first.key_id, *(digest.key_id for digest in walk)]

        assert {key_id_of(n) for n in range(5)} == set(found) - {key_id_of(9)}
        assert len(set(found)) == len(found)

    def test_refresh(self, store: KeyStore) -> None:
        """
        Reading a key again gives what its document says, and changes nothing else.
        """
        change = create(store, 1, name="pay", tags=("t",))
        before = everything(store)

        found = store.refresh(key_id_of(1))

        assert change.entry == found == store.entry("pay")
        assert before == everything(store)
        assert OperationMark(
            key_id=key_id_of(1), aborted=False
        ) == store.find_operation(operation_of(1))

    @pytest.mark.parametrize("key_id", [key_id_of(1), "../meta", "", "a" * 300, "\0"])
    def test_refresh_of_nothing(self, store: KeyStore, key_id: str) -> None:
        """
        Of what is not there, or can't be, there is nothing to read.
        """
        assert store.refresh(KeyId(key_id)) is None
        assert [] == page(store)

    def test_correct(self, store: KeyStore) -> None:
        """
        A corrected entry is what listings, names and digests go by.
        """
        entry = create(store, 1, name="old", tags=("a",)).entry
        right = replace(entry, name="new", tags=frozenset("b"), digest="ab" * 32)

        store.correct(right)

        assert store.entry("old") is None
        assert right == store.entry("new")
        assert [key_id_of(1)] == page(store, wanted=KeyFilter(tags=("b",)))
        assert [] == page(store, wanted=KeyFilter(tags=("a",)))
        assert [KeyDigest(key_id_of(1), 1, "ab" * 32)] == list(store.digests())

    def test_correct_what_is_not_there(self, store: KeyStore) -> None:
        """
        A key that is not there does not come about by correcting it.
        """
        store.correct(change_of(document_of(1), operation_of(1)).entry)

        assert store.entry(key_id_of(1)) is None
        assert [] == list(store.digests())

    def test_correct_a_name_that_is_taken(self, store: KeyStore) -> None:
        """
        Of two keys that claim one name the one that has it already keeps it.
        """
        one = create(store, 1, name="pay").entry
        other = create(store, 2, name="other").entry
        store.correct(replace(other, name="pay"))
        first = store.entry("pay")
        store.correct(one)

        assert one == first == store.entry("pay")
        assert store.entry("other") is None
        assert {key_id_of(1), key_id_of(2)} == set(page(store))

    def test_refresh_undoes_a_correction(self, store: KeyStore) -> None:
        """
        Reading a key again replaces what was said of it.
        """
        entry = create(store, 1, name="old").entry
        store.correct(replace(entry, name="new", generation=7))

        assert entry == store.refresh(key_id_of(1)) == store.entry("old")
        assert store.entry("new") is None

    def test_rebuild(self, store: KeyStore) -> None:
        """
        An index that is built anew says the same of an honest store.
        """
        for number in range(6):
            create(store, number, name=f"key-{number}", tags=("t",))
        store.abort(operation_of(50))
        before = facts(store)

        store.rebuild()

        assert before == facts(store)
        with pytest.raises(OperationAbortedError):
            store.commit(change_of(document_of(9), operation_of(50)))

    def test_reindex(self, store: KeyStore) -> None:
        """
        An index that is replaced says what it was given; documents stay.
        """
        entries = [
            create(store, number, name=f"key-{number}").entry for number in (1, 2)
        ]
        documents = everything(store)
        given = [replace(entry, name="same") for entry in entries]

        store.reindex(given)

        assert given == [store.entry(entry.key_id) for entry in entries]
        assert given[0] == store.entry("same")
        assert store.entry("key-1") is None
        assert documents == everything(store)

    def test_account(self, store: KeyStore) -> None:
        """
        A store that keeps an account has it as it was written and committed last.
        """
        values = tuple(number.to_bytes(32, "big") for number in range(BUCKETS))
        assert store.read_account() is None
        store.write_account(StoreAccount(values, b"first"))
        first = store.read_account()
        change = change_of(document_of(1 << 52), operation_of(1), blobs={1: b"blob"})
        account = AccountChange(1, b"x" * 32, b"second")

        store.commit(replace(change, account=lambda: account))

        second = store.read_account()
        changed = (values[0], b"x" * 32, *values[2:])
        assert (first, second) in {
            (None, None),
            (StoreAccount(values, b"first"), StoreAccount(changed, b"second")),
        }

    def test_discard(self, store: KeyStore) -> None:
        """
        Discarded blobs are gone, others stay, and what is gone already is no error.
        """
        create(store, 1)
        create(store, 2)

        store.discard_blobs(key_id_of(1), (1, 2))
        store.discard_blobs(key_id_of(1), (1,))

        assert store.get_blob(key_id_of(1), 1) is None
        assert b"blob-2" == store.get_blob(key_id_of(2), 1)


class TestFalseIndex:
    """An index that says of a key what no document does, under a running HSM."""

    @pytest.fixture
    def over(self, row: StoreRow, tmp_path: Path) -> Iterator[tuple[HSM, KeyStore]]:
        """Give an HSM over a store, and the store."""
        opened = row.open(tmp_path)
        with memory_hsm(store=opened) as gateway:
            yield gateway.act_as(caller(*Role)), opened.keys

    def falsify(self, session: Session, store: KeyStore, **facts: object) -> str:
        """Make a key whose index row says something else, and return its id."""
        key_id = session.create_key("aes", name="pay", tags=["t"]).key_id
        entry = store.entry(key_id)
        assert entry is not None
        store.correct(replace(entry, **facts))
        return key_id

    def check_found(self, session: Session, key_id: str) -> None:
        """Check that one finding and its audit record name the key."""
        findings = session.status().store.findings
        assert [(key_id, "index")] == [(f.key_id, f.problem) for f in findings]
        events = [e.event for e in session.audit_events(limit=20)]
        corrected = [e.key_id for e in events if e.kind == "system.index-corrected"]
        assert [key_id] == corrected

    @pytest.mark.parametrize(
        "facts",
        [{"name": ""}, {"name": "other"}, {"state": KeyState.DESTROYED.value}],
        ids=["none", "other", "destroyed"],
    )
    def test_a_hidden_name_is_not_free(
        self, over: tuple[HSM, KeyStore], facts: dict[str, object]
    ) -> None:
        """
        No second key gets the name of one that the index hides, and the first has it.
        """
        hsm, store = over
        session = Session(hsm)
        key_id = self.falsify(session, store, **facts)

        with pytest.raises(NameTakenError):
            session.create_key("aes", name="pay")

        assert key_id == session.describe("pay").key_id
        assert key_id == session.update("pay", description="new").key_id
        self.check_found(session, key_id)

    def test_a_hidden_name_is_not_free_for_a_rename(
        self, over: tuple[HSM, KeyStore]
    ) -> None:
        """
        A key does not get the name of one that the index hides by an update.
        """
        hsm, store = over
        session = Session(hsm)
        session.create_key("aes", name="another")
        key_id = self.falsify(session, store, name="")

        with pytest.raises(NameTakenError):
            session.update("another", name="pay")

        self.check_found(session, key_id)

    @pytest.mark.parametrize(
        "facts",
        [
            {"tags": frozenset(), "created_at": 7},
            {"algorithm": Algorithm.ML_DSA_65.value},
            {"owner": "somebody", "usages": frozenset()},
        ],
        ids=lambda facts: next(iter(facts)),
    )
    def test_a_false_row_is_a_finding(
        self, over: tuple[HSM, KeyStore], facts: dict[str, object]
    ) -> None:
        """
        What a comparison puts right is shown by status and audit log, and serves on.
        """
        hsm, store = over
        session = Session(hsm)
        key_id = self.falsify(session, store, **facts)

        hsm.execute(VerifyStore())

        self.check_found(session, key_id)
        assert [key_id] == [key.key_id for key in session.keys(tags=["t"])]
        assert 0 == session.status().tampered_keys


def facts(store: KeyStore) -> dict[str, object]:
    """Return all that a store says of its keys, by every way of asking."""
    entries = {stored.key_id: store.entry(stored.key_id) for stored in store.scan()}
    named = {entry.name: store.entry(entry.name) for entry in entries.values() if entry}
    operations = {
        operation_id: store.find_operation(operation_id)
        for operation_id in map(operation_of, range(60))
    }
    return {
        "documents": everything(store),
        "entries": entries,
        "named": named,
        "operations": operations,
        "digests": set(store.digests()),
        "account": store.read_account(),
        "pages": [
            page(store, wanted=wanted)
            for wanted in (
                KeyFilter(),
                KeyFilter(state=KeyState.DESTROYED),
                KeyFilter(tags=("t",)),
                KeyFilter(algorithm=Algorithm.AES_256_GCM),
            )
        ],
    }


class TestReopen:
    def test_nothing_failed(self, store: KeyStore) -> None:
        """
        A store is available until it is closed, and opening it again does nothing.
        """
        create(store, 1)
        before = store.available, facts(store)
        store.reopen()
        after = store.available, facts(store)
        store.close()

        assert before == after
        assert before[0]
        assert not store.available
        with pytest.raises(StoreUnavailableError):
            store.reopen()


@pytest.mark.parametrize("row", DURABLE, ids=str)
class TestDurability:
    def test_everything_is_there_again(self, row: StoreRow, tmp_path: Path) -> None:
        """
        A store that is closed and opened again says and holds what it did before.
        """
        opened = row.open(tmp_path)
        store = opened.keys
        for number in range(6):
            create(store, number, name=f"key-{number}", tags=("t",) * (number % 2))
        rotated = document_of(
            1, generation=2, versions=2, operations=(operation_of(7),)
        )
        store.commit(change_of(rotated, operation_of(7), blobs={2: b"second"}))
        gone = document_of(2, generation=2, state=KeyState.DESTROYED, name="key-2")
        store.commit(change_of(gone, operation_of(8), removed_blobs=(1,)))
        store.abort(operation_of(50))
        store.write_meta("ring", b"sealed")
        opened.uses.put(key_id_of(1), b"counted")
        before = facts(store)
        store.close()

        opened = row.open(tmp_path)

        store = opened.keys
        assert store.available
        assert before == facts(store)
        assert b"sealed" == store.read_meta("ring")
        assert b"counted" == opened.uses.get(key_id_of(1))
        with pytest.raises(OperationAbortedError):
            store.commit(change_of(document_of(9), operation_of(50)))
        with pytest.raises(NameTakenError):
            create(store, 10, name="key-1" if store.entry("key-1") else "key-3")
        create(store, 11, name="key-2")
        store.close()

    def test_a_correction_is_no_change_of_the_key(
        self, row: StoreRow, tmp_path: Path
    ) -> None:
        """
        What was corrected, or built anew, is there again; documents never change by it.
        """
        store = row.open(tmp_path).keys
        entry = create(store, 1, name="old").entry
        store.correct(replace(entry, name="new"))
        documents = everything(store)
        store.close()

        store = row.open(tmp_path).keys
        found, rebuilt = store.entry(key_id_of(1)), store.refresh(key_id_of(1))

        assert documents == everything(store)
        assert found is not None
        assert found.name in {"old", "new"}
        assert entry == rebuilt
        store.close()


class TestClose:
    def test_later_calls(self, store: KeyStore) -> None:
        """
        After closing, every call fails in the documented way; closing twice does not.
        """
        change = create(store, 1)
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.get(key_id_of(1)),
            lambda: store.get_blob(key_id_of(1), 1),
            lambda: store.commit(change),
            lambda: store.entry(key_id_of(1)),
            lambda: page(store),
            lambda: store.find_operation(operation_of(1)),
            lambda: store.abort(operation_of(2)),
            lambda: list(store.scan()),
            lambda: list(store.digests()),
            lambda: list(store.digests(0)),
            lambda: store.refresh(key_id_of(1)),
            lambda: store.correct(change.entry),
            lambda: store.reindex([change.entry]),
            lambda: store.discard_blobs(key_id_of(1), (1,)),
            lambda: store.read_meta("ring"),
            lambda: store.write_meta("ring", b""),
            store.rebuild,
            store.read_account,
            lambda: store.write_account(StoreAccount((bytes(32),) * BUCKETS, b"")),
        ]

        for call in calls:
            with pytest.raises(StoreUnavailableError):
                call()

    def test_repr(self, store: KeyStore) -> None:
        """
        The representation names the kind of store.
        """
        assert "KeyStore" in repr(store)


class _BrokenRecords(MemoryRecords):
    """Records that raise what they like."""

    def check_usable(self) -> None:
        raise OSError(5, "Input/output error")


class _Broken(RecordKeyStore):
    """A store of somebody else's that raises what it likes."""

    def __init__(self) -> None:
        super().__init__(_BrokenRecords("store"), KeyIndex())


class TestGuard:
    def test_foreign_exceptions(self) -> None:
        """
        Whatever a store raises, only errors of ours come through, with the cause.
        """
        store = guarded(_Broken())
        calls: list[Callable[[], object]] = [
            lambda: store.get(key_id_of(1)),
            lambda: store.get_blob(key_id_of(1), 1),
            lambda: store.entry("name"),
            lambda: page(store),
            lambda: store.find_operation(operation_of(1)),
            lambda: store.abort(operation_of(2)),
            lambda: list(store.scan()),
            lambda: list(store.digests()),
            lambda: store.refresh(key_id_of(1)),
            lambda: store.correct(change_of(document_of(1), "a").entry),
            lambda: store.reindex([]),
            lambda: store.discard_blobs(key_id_of(1), (1,)),
            lambda: store.read_meta("ring"),
            lambda: store.write_meta("ring", b""),
            store.rebuild,
            store.reopen,
            store.read_account,
            lambda: store.write_account(StoreAccount((), b"")),
        ]

        for call in calls:
            with pytest.raises(StoreUnavailableError) as caught:
                call()
            assert isinstance(caught.value.__cause__, OSError)

    def test_foreign_exception_in_commit(self) -> None:
        """
        Nobody knows the outcome of a commit that failed in an undocumented way.
        """
        store = guarded(_Broken())

        with pytest.raises(OutcomeUnknownError) as caught:
            store.commit(change_of(document_of(1), operation_of(1)))

        assert {"operation_id": operation_of(1)} == caught.value.facts

    def test_foreign_exception_in_available(self) -> None:
        """
        A store that can't tell how it is counts as unavailable.
        """

        class Silent(MemoryKeyStore):
            @property
            def available(self) -> bool:
                raise RuntimeError

        assert not guarded(Silent()).available

    def test_store_that_hands_on(self) -> None:
        """
        A store need not have its methods and properties in its class.
        """

        class Handing:
            def __init__(self) -> None:
                self.is_remote = True
                self.available = True

            def __getattr__(self, name: str) -> object:
                return getattr(_Broken(), name)

        store: KeyStore = guarded(Handing())  # type: ignore[assignment]

        assert store.is_remote
        assert store.available
        with pytest.raises(StoreUnavailableError):
            store.get(key_id_of(1))
        with pytest.raises(OutcomeUnknownError):
            store.commit(change_of(document_of(1), operation_of(1)))

    def test_store_that_does_not_say_where_it_is(self) -> None:
        """
        A store without the property is not remote, and nothing else is made up.
        """
        store = guarded(object())

        assert not store.is_remote  # type: ignore[attr-defined]
        for name in ("get", "_get"):
            with pytest.raises(AttributeError):
                getattr(store, name)

    def test_own_errors_pass(self) -> None:
        """
        Errors of ours come through as they are.
        """
        store = guarded(MemoryKeyStore())

        with pytest.raises(HSMError) as caught:
            store.get(key_id_of(1))

        assert KeyNotFoundError is type(caught.value)


def test_damaged_index_facts_do_not_pass_for_a_new_key(store: KeyStore) -> None:
    """
    A key that is there is never taken for new, whatever generation it claims.
    """
    create(store, 1)
    document = document_of(1, generation=1, name="other")
    change = KeyChange(
        entry=replace(change_of(document, "a").entry, generation=0),
        document=encode_document(document, RING.document_mac),
        expected_generation=1,
        operation_id="a",
    )
    store.commit(change)

    with pytest.raises(GenerationConflictError):
        store.commit(replace(change, expected_generation=0, operation_id="b"))
