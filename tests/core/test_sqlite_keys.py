# SPDX-License-Identifier: MIT
"""A key store in SQLite: edited rows are found, and its index is as others are."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.memory.records import MemoryKeyStore
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.algorithms import Algorithm
from hsm_core.errors import (
    ConflictError,
    HSMError,
    IntegrityError,
    InvalidInputError,
    KeyNotFoundError,
    KeyTamperedError,
    OutcomeUnknownError,
)
from hsm_core.model import Integrity, KeyFilter, KeyId, KeyState
from hsm_core.protocols import (
    BUCKETS,
    IndexQuery,
    KeyDigest,
    KeyStore,
    StoreAccount,
    StoredKey,
)
from tests.core.key_support import (
    change_of,
    document_of,
    everything,
    key_id_of,
    operation_of,
    page,
)
from tests.core.sqlite_support import copy_of, edited, keys_template, log_of

MATERIAL = "00000000-0000-4000-8000-000000000001"
ALGORITHMS = [Algorithm.AES_256_GCM, Algorithm.EC_P256]
STATES = [KeyState.ACTIVE, KeyState.SUSPENDED, KeyState.DESTROYED]
TAGS = ("a", "b")
VALUES = ["'text'", "7", "-1.5", "x'ff00'", "CAST(x'ff' AS TEXT)", "zeroblob(9)"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a closed store of three keys to copy."""
    return keys_template(tmp_path_factory.mktemp("template") / "keys.sqlite")


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """Give the path of a copy of it."""
    return copy_of(template, tmp_path / "store")


@pytest.fixture
def store(path: Path) -> Iterator[SqliteKeyStore]:
    """Give the store, open."""
    with closing(SqliteKeyStore(path)) as opened:
        yield opened


def touch(store: KeyStore) -> None:
    """Read everything in every way; only errors of ours may come."""
    keys = [key_id_of(number) for number in (1, 2, 3)]
    calls: list[Callable[[], object]] = [
        lambda: list(store.scan()),
        lambda: list(store.digests()),
        lambda: list(store.digests(0)),
        lambda: page(store),
        lambda: page(store, offset=2),
        lambda: page(store, wanted=KeyFilter(state=KeyState.ACTIVE)),
        lambda: store.find_operation(operation_of(1)),
        lambda: store.read_meta("ring"),
        lambda: store.read_account(),
        *(lambda key=key: store.get(key) for key in keys),
        *(lambda key=key: store.get_blob(key, 1) for key in keys),
        *(lambda key=key: store.entry(key) for key in keys),
        *(lambda n=n: store.entry(f"name-{n}") for n in (1, 2, 3)),
        *(lambda key=key: store.refresh(key) for key in keys),
    ]
    for call in calls:
        with suppress(HSMError):
            call()


class TestEditedRows:
    @pytest.mark.parametrize(
        ("table", "column"),
        [
            *(("keys", c) for c in "key_id created_at name algorithm state".split()),
            *(("keys", c) for c in "tags generation operations digest claim".split()),
            ("documents", "document"),
            ("blobs", "blob"),
            *(("facets", c) for c in "tag algorithm state number".split()),
            *(("places", c) for c in "facet created_at key_id".split()),
            *(("operations", c) for c in "operation_id n".split()),
            *(("meta", c) for c in "name value".split()),
            ("account", "value"),
        ],
    )
    def test_values_of_any_type(
        self, template: Path, tmp_path: Path, table: str, column: str
    ) -> None:
        """
        Whatever stands in a row, an answer is given or an error of ours is raised.
        """
        for number, value in enumerate(VALUES):
            path = copy_of(template, tmp_path / str(number))
            edited(
                path,
                "INSERT INTO account (bucket, value) VALUES (0, x'00')",
                f"UPDATE OR IGNORE {table} SET {column} = {value} "  # noqa: S608
                f"WHERE 1 = (SELECT count(*) FROM {table} AS t "
                f"WHERE t.{column} <= {table}.{column})",
            )
            with closing(SqliteKeyStore(path)) as store:
                touch(store)

                assert store.available

    def test_document_removed(self, path: Path) -> None:
        """
        A key whose document is gone is missing, and not unknown.
        """
        edited(path, "DELETE FROM documents WHERE n = 2")

        with closing(SqliteKeyStore(path)) as store:
            with pytest.raises(KeyTamperedError) as caught:
                store.get(key_id_of(2))
            scanned = {stored.key_id: stored.document for stored in store.scan()}

            assert Integrity.MISSING.value == caught.value.facts["integrity"]
            assert b"" == scanned[key_id_of(2)]
            assert store.refresh(key_id_of(2)) is None
            assert store.entry(key_id_of(2)) is None
            assert [key_id_of(3), key_id_of(1)] == page(store)
            assert 2 == store.find(IndexQuery(filter=KeyFilter(), limit=1)).total

    def test_document_of_another_type(self, path: Path) -> None:
        """
        What is no byte string is no document, and nobody takes it for one.
        """
        edited(path, "UPDATE documents SET document = 'text' WHERE n = 2")

        with closing(SqliteKeyStore(path)) as store:
            assert b"" == store.get(key_id_of(2)).document
            entry = store.refresh(key_id_of(2))
            assert entry is not None
            assert (0, "") == (entry.generation, entry.state)
            assert 3 == len(list(store.scan()))

    def test_rows_that_changed_places(self, path: Path) -> None:
        """
        A document or blob that was moved to another key is given as it lies there.
        """
        edited(
            path,
            "UPDATE documents SET n = -1 WHERE n = 1",
            "UPDATE documents SET n = 1 WHERE n = 3",
            "UPDATE documents SET n = 3 WHERE n = -1",
        )

        with closing(SqliteKeyStore(path)) as store:
            moved = store.get(key_id_of(1)).document
            entry = store.refresh(key_id_of(1))

        assert key_id_of(3).encode() in moved
        assert entry is not None
        assert 0 == entry.generation

    def test_index_that_was_edited(self, path: Path) -> None:
        """
        An index that lies is put right from the document, and so are listings.
        """
        with closing(SqliteKeyStore(path)) as store:
            before = [store.entry(key_id_of(n)) for n in (1, 2, 3)]
        edited(
            path,
            "UPDATE keys SET state = 'destroyed', name = 'x', claim = 'x', digest = '' "
            "WHERE n = 1",
            "UPDATE keys SET tags = 7, created_at = 'x', operations = 1 WHERE n = 2",
        )

        with closing(SqliteKeyStore(path)) as store:
            with pytest.raises(KeyTamperedError):
                store.entry(key_id_of(2))
            after = [store.refresh(key_id_of(n)) for n in (1, 2, 3)]
            listed = page(store)

            assert before == after
            assert [key_id_of(n) for n in (3, 2, 1)] == listed
            assert before[0] == store.entry("name-1")
            assert store.entry("x") is None
            assert sound(store)

    def test_rebuild(self, path: Path) -> None:
        """
        An index that is gone is made anew from the documents.
        """
        with closing(SqliteKeyStore(path)) as store:
            before = [store.entry(key_id_of(n)) for n in (1, 2, 3)]
        edited(
            path, "DELETE FROM places", "DELETE FROM facets", "DELETE FROM operations"
        )

        with closing(SqliteKeyStore(path)) as store:
            assert [] == page(store)
            store.rebuild()

            assert [key_id_of(n) for n in (3, 2, 1)] == page(store)
            assert before == [store.entry(f"name-{n}") for n in (1, 2, 3)]
            assert store.find_operation(operation_of(3)) is not None
            assert sound(store)

    def test_number_that_no_table_holds(self, path: Path) -> None:
        """
        A document that claims numbers without end is listed as unreadable.
        """
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE documents SET document = CAST(replace(CAST(document AS TEXT), "
                "'\"created_at\":1001', '\"created_at\":' || ?) AS BLOB) WHERE n = 1",
                ("9" * 30,),
            )

        with closing(SqliteKeyStore(path)) as store:
            entry = store.refresh(key_id_of(1))

            assert entry is not None
            assert (0, 0) == (entry.created_at, entry.generation)
            assert 64 == len(entry.digest)
            assert [key_id_of(n) for n in (3, 2, 1)] == page(store)

    @pytest.mark.parametrize("value", ["zeroblob(70000000)", "CAST(x'ff' AS TEXT)"])
    def test_values_that_nobody_can_read(self, path: Path, value: str) -> None:
        """
        One value that is too long, or no text, is damage of one key, and named.
        """
        edited(
            path,
            f"UPDATE documents SET document = {value} WHERE n = 2",  # noqa: S608
            f"UPDATE blobs SET blob = {value} WHERE id >> 27 = 3",  # noqa: S608
            f"UPDATE uses SET value = {value}",  # noqa: S608
        )

        with closing(SqliteKeyStore(path)) as store:
            damaged = store.get(key_id_of(2)).document
            documents = {stored.key_id: stored.document for stored in store.scan()}

            assert b"" == damaged
            assert 3 == len(documents)
            assert b"" == documents[key_id_of(2)]
            assert b"" == store.get_blob(key_id_of(3), 1)
            assert b"" == store.uses.get(MATERIAL)
            assert store.available

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("name", "CAST(zeroblob(70000000) AS TEXT)"),
            ("name", "CAST(x'ff' AS TEXT)"),
            ("tags", "CAST(x'ff' AS TEXT)"),
            ("claim", "CAST(x'ff' AS TEXT)"),
        ],
    )
    def test_entries_that_nobody_can_read(
        self, path: Path, column: str, value: str
    ) -> None:
        """
        An entry with such a value is tampered with, and can be put right.
        """
        with closing(SqliteKeyStore(path)) as store:
            good = store.entry(key_id_of(2))
            assert good is not None
        edited(path, f"UPDATE keys SET {column} = {value} WHERE n = 2")  # noqa: S608

        with closing(SqliteKeyStore(path)) as store:
            with pytest.raises(KeyTamperedError):
                store.entry(key_id_of(2))
            assert 3 == len(list(store.scan()))
            store.correct(good)

            assert good == store.entry(key_id_of(2)) == store.entry(good.name)
            assert [key_id_of(n) for n in (3, 2, 1)] == page(store)
            store.database.verify()

    @pytest.mark.parametrize("column", ["key_id", "digest"])
    def test_rows_that_nobody_can_read(self, path: Path, column: str) -> None:
        """
        A row whose id or digest is no text hides no other from whoever compares.
        """
        edited(
            path,
            f"UPDATE keys SET {column} = CAST(x'61ff' AS TEXT) "  # noqa: S608
            "WHERE n = 2",
        )

        with closing(SqliteKeyStore(path)) as store:
            scanned = {stored.key_id for stored in store.scan()}
            digests = {digest.key_id: digest.digest for digest in store.digests()}
            good = {key_id_of(1), key_id_of(3)}

            assert good <= scanned
            assert good <= digests.keys()
            assert "" == digests.get(key_id_of(2), "")
            if column == "key_id":
                assert good == scanned == digests.keys()

    def test_values_of_uses(self, path: Path) -> None:
        """
        A counter that is no short byte string has no bytes.
        """
        edited(path, "UPDATE uses SET value = 'text'")
        with closing(SqliteKeyStore(path)) as store:
            assert b"" == store.uses.get(MATERIAL)
        edited(path, "UPDATE uses SET value = zeroblob(4097)")
        with closing(SqliteKeyStore(path)) as store:
            assert b"" == store.uses.get(MATERIAL)

    def test_meta_of_another_type(self, path: Path) -> None:
        """
        A named value that is no byte string is damage, and not absence.
        """
        edited(path, "UPDATE meta SET value = 'text'")

        with closing(SqliteKeyStore(path)) as store, pytest.raises(IntegrityError):
            store.read_meta("ring")


def crashed(path: Path, number: int, folder: Path) -> Path:
    """Return a copy as a kill leaves it after one more key, which is in the log."""
    copy = copy_of(path, folder)
    with closing(SqliteKeyStore(path)) as store:
        store.commit(change_of(document_of(number), operation_of(number)))
        shutil.copy(log_of(path), log_of(copy))
    return copy


class TestOtherLogs:
    def test_log_of_a_kill(self, path: Path, tmp_path: Path) -> None:
        """
        A key that stands in the log only is there after a kill.
        """
        copy = crashed(path, 9, tmp_path / "copy")

        with closing(SqliteKeyStore(copy)) as store:
            store.database.verify()
            assert b"" != store.get(key_id_of(9)).document

    def test_deleted_log(self, path: Path, tmp_path: Path) -> None:
        """
        Without its log a store is an older one, whole in itself; who counts finds out.
        """
        copy = crashed(path, 9, tmp_path / "copy")
        log_of(copy).unlink()

        with closing(SqliteKeyStore(copy)) as store:
            store.database.verify()
            assert [key_id_of(n) for n in (3, 2, 1)] == page(store)
            assert sound(store)

    def test_log_of_another_store(self, path: Path, tmp_path: Path) -> None:
        """
        Whatever another store's log brings about, only errors of ours come of it.
        """
        other = keys_template(tmp_path / "other" / "keys.sqlite")
        with closing(SqliteKeyStore(other)) as store:
            for number in range(20, 60):
                store.commit(change_of(document_of(number), operation_of(number)))
        foreign = crashed(other, 99, tmp_path / "foreign")
        shutil.copy(log_of(foreign), log_of(path))

        with suppress(IntegrityError), closing(SqliteKeyStore(path)) as store:
            touch(store)
            with pytest.raises(IntegrityError):
                store.database.verify()

    def test_stale_index_of_a_log(self, path: Path) -> None:
        """
        An index of a log that lies there is not looked at.
        """
        index = path.with_name(path.name + "-shm")
        index.write_bytes(b"\xff" * 32768)
        index.chmod(0o600)

        with closing(SqliteKeyStore(path)) as store:
            assert [key_id_of(n) for n in (3, 2, 1)] == page(store)


def sound(store: SqliteKeyStore) -> bool:
    """Return whether each facet has as many keys as it says, and each place a facet."""
    counted = store.database.rows(
        "SELECT f.number, (SELECT count(*) FROM places AS p WHERE p.facet = f.id) "
        "FROM facets AS f"
    )
    homeless = store.database.rows(
        "SELECT 1 FROM places WHERE facet NOT IN (SELECT id FROM facets)"
    )
    return not homeless and all(said == there > 0 for said, there in counted)


class TestAccount:
    ACCOUNT = StoreAccount(values=(b"\x01" * 32,) * BUCKETS, seal=b"seal")

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM account WHERE bucket = 4095",
            "UPDATE account SET value = 'text' WHERE bucket = 0",
            "DELETE FROM meta WHERE name = 'Account'",
            "UPDATE meta SET value = 3 WHERE name = 'Account'",
        ],
    )
    def test_edited(self, path: Path, statement: str) -> None:
        """
        A part that is gone or no byte string is empty, so that no seal fits.
        """
        with closing(SqliteKeyStore(path)) as store:
            store.write_account(self.ACCOUNT)
        edited(path, statement)

        with closing(SqliteKeyStore(path)) as store:
            found = store.read_account()

        assert found is not None
        assert BUCKETS == len(found.values)
        assert b"" in {found.seal, *found.values}


class TestCommit:
    def test_undone_as_a_whole(self, store: SqliteKeyStore) -> None:
        """
        A change whose last part fails leaves nothing of its first.
        """
        before = everything(store), store.entry(key_id_of(1)), page(store)
        document = document_of(1, generation=2, name="other", tags=("t",))
        change = change_of(document, operation_of(9), blobs={5: b"new", 1: b"again"})

        with pytest.raises(ConflictError, match="can't be replaced"):
            store.commit(change)

        assert before == (everything(store), store.entry(key_id_of(1)), page(store))
        assert sound(store)

    def test_unknown_outcome(self, store: SqliteKeyStore) -> None:
        """
        A commit that SQLite can't finish has no known outcome, until reopened.
        """

        def fail(name: str) -> None:
            if name == "sqlite.before_commit":
                raise sqlite3.OperationalError("disk I/O error")

        change = change_of(document_of(9), operation_of(9))
        with install(fail), pytest.raises(OutcomeUnknownError) as caught:
            store.commit(change)
        before = store.available
        store.reopen()

        assert {"operation_id": operation_of(9)} == caught.value.facts
        assert (False, True) == (before, store.available)
        assert 3 + (store.find_operation(operation_of(9)) is not None) == len(
            page(store)
        )

    def test_destroyed_material_is_overwritten(self, path: Path) -> None:
        """
        A blob that was removed is nowhere in the closed database any more.
        """
        blob = b"to be forgotten" * 400
        with closing(SqliteKeyStore(path)) as store:
            store.commit(change_of(document_of(9), operation_of(9), blobs={1: blob}))
        there = b"to be forgotten" in path.read_bytes()
        with closing(SqliteKeyStore(path)) as store:
            gone = document_of(9, generation=2, state=KeyState.DESTROYED)
            store.commit(change_of(gone, operation_of(10), removed_blobs=(1,)))

        assert there
        assert b"to be forgotten" not in path.read_bytes()


class TestReading:
    def test_cursor_that_is_none(self, store: SqliteKeyStore) -> None:
        """
        A page can't begin behind what is no place of a key.
        """
        for after in ((1, "x"), (2**64, key_id_of(1)), (1, "\ud800")):
            with pytest.raises(InvalidInputError, match="after"):
                page(store, after=after)

    def test_odd_references(self, store: SqliteKeyStore) -> None:
        """
        What can be no reference is not found.
        """
        for reference in ("", "\ud800", "a\0b", "x" * 100_000):
            assert store.entry(reference) is None
            with pytest.raises(KeyNotFoundError):
                store.get(KeyId(reference))
        for version in (0, -1, 2**27, 2**80):
            assert store.get_blob(key_id_of(1), version) is None
        assert [] == page(store, offset=2**70)

    def test_walk_among_writes(self, store: SqliteKeyStore) -> None:
        """
        A walk that pauses keeps nobody from writing, and shows old keys once each.
        """
        walks: list[Iterator[StoredKey | KeyDigest]] = [store.scan(), store.digests()]
        first = [next(walk) for walk in walks]
        for number in range(10, 20):
            store.commit(change_of(document_of(number), operation_of(number)))

        for begun, walk in zip(first, walks, strict=True):
            ids = [item.key_id for item in [begun, *walk]]
            assert {key_id_of(n) for n in (1, 2, 3)} <= set(ids)
            assert len(set(ids)) == len(ids)


# The index is the same as in memory

FILTERS = [
    KeyFilter(algorithm=algorithm, state=state, tags=tags)
    for algorithm in (None, *ALGORITHMS)
    for state in (None, *STATES)
    for tags in ((), ("a",), ("b", "a"), ("c",))
]

CHANGES = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from(STATES),
        st.sampled_from(ALGORITHMS),
        st.sets(st.sampled_from(TAGS)),
        st.sampled_from(["", "one", "two"]),
        st.integers(1, 3),
    ),
    max_size=12,
)


def answers(store: KeyStore) -> object:
    """Return all that an index can be asked for."""
    keys = [key_id_of(number) for number in range(1, 6)]
    queries = [
        IndexQuery(filter=wanted, limit=limit, offset=offset)
        for wanted, (limit, offset) in itertools.product(
            FILTERS, [(10, 0), (2, 0), (2, 1), (2, 3), (1, 4), (3, 9), (0, 0)]
        )
    ]
    behind = [
        IndexQuery(filter=wanted, limit=2, after=(created_at, key_id_of(3)))
        for wanted, created_at in itertools.product(FILTERS, (0, 2, 9))
    ]
    return (
        [store.find(query) for query in (*queries, *behind)],
        [store.entry(reference) for reference in (*keys, "one", "two")],
        [store.find_operation(operation_of(n)) for n in range(30)],
        sorted(digest.key_id for digest in store.digests()),
    )


def outcome(call: Callable[[], object]) -> object:
    """Return what a call gives, or which error it raises."""
    try:
        return call()
    except HSMError as error:
        return type(error)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=CHANGES)
def test_the_index_answers_as_that_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, KeyState, Algorithm, set[str], str, int]],
) -> None:
    """
    After any changes every listing, look-up and total is the same, on every page.
    """
    memory = MemoryKeyStore()
    path = tmp_path_factory.mktemp("model") / "keys.sqlite"
    generations: dict[int, int] = {}
    with closing(SqliteKeyStore(path)) as store:
        for at, (number, state, algorithm, tags, name, created_at) in enumerate(
            changes
        ):
            document = document_of(
                number,
                generation=generations.get(number, 0) + 1,
                state=state,
                algorithm=algorithm,
                tags=tuple(sorted(tags)),
                name=name,
                created_at=created_at,
                operations=(operation_of(at),),
            )
            change = change_of(document, operation_of(at))
            made = [outcome(partial(s.commit, change)) for s in (memory, store)]
            assert made[0] == made[1]
            if made[0] is None:
                generations[number] = document.generation

        assert answers(memory) == answers(store)
        assert sound(store)
        entries = [e for n in range(1, 6) if (e := store.entry(key_id_of(n)))]
        for each in (memory, store):
            each.reindex(entries[::-1])
        assert answers(memory) == answers(store)
        assert sound(store)
