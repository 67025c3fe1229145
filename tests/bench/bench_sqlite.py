# SPDX-License-Identifier: MIT
"""What it costs to look something up among 100,000 keys in the SQLite store."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hsm_core._internal.stores.sqlite import key_index
from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from hsm_core.algorithms import Algorithm
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.protocols import IndexEntry, IndexQuery

_KEYS = 100_000
_AT_ONCE = 10_000
_DOCUMENT_BYTES = 1500
_ALGORITHMS = list(Algorithm)[:8]
_WANTED = _ALGORITHMS[1]


def _entries() -> Iterator[IndexEntry]:
    choice = random.Random(1)
    for number in range(_KEYS):
        key_id = str(uuid.UUID(int=choice.getrandbits(128), version=4))
        yield IndexEntry(
            key_id=KeyId(key_id),
            created_at=1_764_000_000_000_000 + 1000 * number,
            name=f"key-{number}",
            algorithm=_ALGORITHMS[number % 8],
            state=(KeyState.SUSPENDED, KeyState.ACTIVE)[number % 3 > 0],
            tags=frozenset({"all", f"team-{number % 50}"}),
            generation=1,
            operations=(f"{number:032x}",),
            digest="ab" * 32,
        )


@pytest.fixture(scope="module")
def entries() -> list[IndexEntry]:
    """Give what the index shall hold, oldest key first."""
    return list(_entries())


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, entries: list[IndexEntry]
) -> Iterator[SqliteKeyStore]:
    """Give a store of many keys, opened anew."""
    path = tmp_path_factory.mktemp("many") / "keys.sqlite"
    document = random.Random(2).randbytes(_DOCUMENT_BYTES)
    with closing(SqliteKeyStore(path)) as filling:
        for begin in range(0, _KEYS, _AT_ONCE):
            with filling.database.transaction(durable=False) as connection:
                for entry in entries[begin : begin + _AT_ONCE]:
                    number = key_index.put(connection, entry)
                    connection.execute(
                        "INSERT INTO documents (n, document) VALUES (?, ?)",
                        (number, document),
                    )
    with closing(SqliteKeyStore(path)) as opened:
        yield opened


@pytest.mark.parametrize(
    "wanted",
    [
        KeyFilter(),
        KeyFilter(algorithm=_WANTED),
        KeyFilter(algorithm=_WANTED, state=KeyState.ACTIVE),
        KeyFilter(tags=("all",)),
        KeyFilter(algorithm=_WANTED, state=KeyState.ACTIVE, tags=("all",)),
        KeyFilter(tags=("all", "team-7")),
    ],
    ids=["all", "algorithm", "algorithm-state", "tag", "everything", "two-tags"],
)
def test_page(
    benchmark: BenchmarkFixture, store: SqliteKeyStore, wanted: KeyFilter
) -> None:
    """
    The newest fifty keys of a listing, and its total; goal: 40 microseconds.
    """
    query = IndexQuery(filter=wanted, limit=50)

    page = benchmark(store.find, query)

    assert 50 == len(page.keys)


@pytest.mark.parametrize("offset", [1000, _KEYS // 2, 9 * _KEYS // 10])
def test_offset(
    benchmark: BenchmarkFixture, store: SqliteKeyStore, offset: int
) -> None:
    """
    Fifty keys from the middle of a listing; goal: a millisecond.
    """
    query = IndexQuery(filter=KeyFilter(), limit=50, offset=offset)

    page = benchmark(store.find, query)

    assert (50, _KEYS) == (len(page.keys), page.total)


def test_cursor(
    benchmark: BenchmarkFixture, store: SqliteKeyStore, entries: list[IndexEntry]
) -> None:
    """
    The fifty keys behind one in the middle of a listing.
    """
    middle = entries[_KEYS // 2]
    query = IndexQuery(
        filter=KeyFilter(), limit=50, after=(middle.created_at, middle.key_id)
    )

    page = benchmark(store.find, query)

    assert entries[_KEYS // 2 - 1].key_id == page.keys[0][1]


@pytest.mark.parametrize(
    "look_up",
    [
        lambda store, entry: store.get(entry.key_id),
        lambda store, entry: store.entry(entry.key_id),
        lambda store, entry: store.entry(entry.name),
        lambda store, entry: store.find_operation(entry.operations[0]),
    ],
    ids=["get", "entry-by-id", "entry-by-name", "find-operation"],
)
def test_look_up(
    benchmark: BenchmarkFixture,
    store: SqliteKeyStore,
    entries: list[IndexEntry],
    look_up: Callable[[SqliteKeyStore, IndexEntry], object],
) -> None:
    """
    One key out of all, each time another of a thousand; goal of get: 6 microseconds.
    """
    wanted = itertools.cycle(random.Random(3).sample(entries, 1000))

    assert benchmark(lambda: look_up(store, next(wanted)))
