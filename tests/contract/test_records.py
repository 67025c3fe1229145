# SPDX-License-Identifier: MIT
"""
What every medium of records promises, run over every implementation.

A new medium is one more row of `MEDIA`; key store, use counters and approvals over it
have suites of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.filesystem.layout import Layout
from hsm_core._internal.stores.filesystem.records import FileRecords
from hsm_core._internal.stores.index import KeyIndex
from hsm_core._internal.stores.keys import KeyEntries
from hsm_core._internal.stores.memory.records import MemoryRecords
from hsm_core._internal.stores.postgresql.key_index import ClusterKeyRows
from hsm_core._internal.stores.postgresql.records import ClusterRecords
from hsm_core._internal.stores.records import (
    ABORTED,
    META,
    USES,
    Commit,
    Records,
    blob_name,
    document_name,
)
from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core._internal.stores.remote.records import VaultRecords
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core._internal.stores.sqlite.key_index import KeyRows
from hsm_core._internal.stores.sqlite.key_rows import KEYS_SCHEMA
from hsm_core._internal.stores.sqlite.records import SqliteRecords
from hsm_core.errors import ConflictError, StoreUnavailableError
from hsm_core.testing import FakeClock
from tests.core.cluster_support import database_of
from tests.core.key_support import change_of, document_of, key_id_of, operation_of

KEY = key_id_of(1)
BLOBS = [blob_name(KEY, version) for version in (0, 1, 2, 3)]
COUNTER = USES + KEY


@dataclass(frozen=True)
class Medium:
    """Open records, and the index that their key store would have."""

    records: Records
    index: KeyEntries


def _memory(folder: Path) -> Medium:
    return Medium(MemoryRecords("key store"), KeyIndex())


def _files(folder: Path) -> Medium:
    return Medium(FileRecords(Layout(folder / "store"), "key store"), KeyIndex())


def _sqlite(folder: Path) -> Medium:
    database = Database(folder / "keys.sqlite", KEYS_SCHEMA)
    return Medium(SqliteRecords(database), KeyRows(database))


def _postgresql(folder: Path) -> Medium:
    database = database_of(folder)
    return Medium(ClusterRecords(database), ClusterKeyRows(database))


def _vault(folder: Path) -> Medium:
    records = VaultRecords(
        MemoryVault(),
        clock=FakeClock(),
        entropy=SystemEntropy(),
        holder="contract",
        patient=False,
    )
    return Medium(records, KeyIndex())


MEDIA: dict[str, Callable[[Path], Medium]] = {
    "memory": _memory,
    "files": _files,
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "vault": _vault,
}


@pytest.fixture(params=MEDIA)
def medium(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Medium]:
    """Give one empty medium after the other."""
    opened = MEDIA[request.param](tmp_path)
    yield opened
    opened.records.close()


@pytest.fixture
def records(medium: Medium) -> Records:
    """Give its records."""
    return medium.records


def commit_of(
    medium: Medium,
    generation: int,
    *,
    versions: int = 1,
    before: dict[str, bytes] | None = None,
    after: tuple[str, ...] = (),
    check: Callable[[], None] = lambda: None,
    tenures_ago: int = 0,
) -> Commit:
    """Return the change that makes a generation of the key."""
    document = document_of(1, generation=generation, versions=versions)
    change = change_of(document, operation_of(generation))
    replaced = medium.index.entry(KEY)
    return Commit(
        name=document_name(KEY),
        data=change.document,
        expected_generation=generation - 1,
        tenure=medium.records.tenure - tenures_ago,
        expected=lambda: replaced.digest if replaced else "",
        before=before or {},
        after=after,
        check=check,
        made=lambda: medium.index.put(change.entry),
    )


@pytest.mark.parametrize("name", [META + "ring", COUNTER])
def test_single_records(records: Records, name: str) -> None:
    """
    A record has the bytes that were put last, and is gone when it was deleted.
    """
    before = records.read(name)
    records.put(name, b"first")
    records.put(name, b"second")

    assert before is None
    assert b"second" == records.read(name)


def test_deletes(records: Records) -> None:
    """
    Each record that was there is reported as it is deleted; others are no error.
    """
    gone: list[str] = []
    records.put(COUNTER, b"value", is_first=True)

    records.delete([COUNTER], gone.append)

    assert [COUNTER] == gone
    assert records.read(COUNTER) is None
    assert [] == list(records.ids(USES))
    records.delete([COUNTER])


def test_abort_marks(records: Records) -> None:
    """
    An abort mark can be put twice, and stays.
    """
    mark = ABORTED + operation_of(1)
    with records.writing():
        records.put(mark, b"aborted\n")
        records.put(mark, b"aborted\n")

    assert records.stored(mark) is not None


def test_commit(medium: Medium) -> None:
    """
    A change has its blobs, its document and its entry, and none of what it deletes.
    """
    records = medium.records
    first = commit_of(medium, 1, before={BLOBS[1]: b"one"})
    records.commit(first)
    second = commit_of(
        medium, 2, versions=2, before={BLOBS[2]: b"two"}, after=(BLOBS[1],)
    )

    records.commit(second)

    assert first.data != second.data == records.read(document_name(KEY))
    assert [None, b"two"] == [records.read(name) for name in BLOBS[1:3]]
    entry = medium.index.entry(KEY)
    assert entry is not None
    assert 2 == entry.generation


@pytest.mark.parametrize("generation", [1, 2])
def test_refused(medium: Medium, generation: int) -> None:
    """
    What the check refuses changes nothing.

    A medium may ask only where the key is not at the expected generation.
    """

    def refuse() -> None:
        raise ConflictError("Refused.")

    records = medium.records
    if generation == 2:
        records.commit(commit_of(medium, 1))
    before = records.read(document_name(KEY))
    change = replace(
        commit_of(medium, generation, before={BLOBS[1]: b"one"}, check=refuse),
        expected_generation=generation,
    )

    with pytest.raises(ConflictError, match="Refused"):
        records.commit(change)

    assert before == records.read(document_name(KEY))
    assert records.read(BLOBS[1]) is None
    assert generation - 1 == len(list(medium.index.digests(None)))


def test_change_of_a_former_tenure(medium: Medium) -> None:
    """
    A change that was prepared under another lease is refused; only vaults have leases.
    """
    records = medium.records

    with pytest.raises(StoreUnavailableError, match="lease"):
        records.commit(commit_of(medium, 1, tenures_ago=1))

    assert [] == list(medium.index.digests(None))
    assert records.available
    assert records.is_remote == (records.tenure > 0)


def test_named_blobs_are_immutable(medium: Medium) -> None:
    """
    A blob that the document names is never replaced, and the change is not made.
    """
    records = medium.records
    records.commit(commit_of(medium, 1, before={BLOBS[1]: b"one"}))
    before = records.read(document_name(KEY))

    with pytest.raises(ConflictError):
        records.commit(commit_of(medium, 2, before={BLOBS[1]: b"other"}))

    assert b"one" == records.read(BLOBS[1])
    assert before == records.read(document_name(KEY))


def test_documents(medium: Medium) -> None:
    """
    Documents come in the order asked for, and None for what is not there.
    """
    medium.records.commit(commit_of(medium, 1))
    other = key_id_of(2)

    found = list(medium.records.read_documents([other, KEY]))

    assert [(other, True), (KEY, False)] == [(k, d is None) for k, d in found]


def test_reopening_what_is_sound(records: Records) -> None:
    """
    Where nothing failed, reopening reads nothing again.
    """
    records.put(COUNTER, b"value")

    records.reopen(lambda name, stored: pytest.fail(name), lambda: pytest.fail("all"))

    assert records.available
    assert b"value" == records.read(COUNTER)


def test_closed(medium: Medium) -> None:
    """
    Closed records answer nothing and take nothing.
    """
    records = medium.records
    records.close()
    calls: list[Callable[[], object]] = [
        lambda: records.read(COUNTER),
        lambda: list(records.ids(USES)),
        lambda: records.put(COUNTER, b""),
        lambda: records.delete([COUNTER]),
        lambda: records.commit(commit_of(medium, 1)),
        lambda: records.reopen(lambda name, stored: None),
        records.check_usable,
        records.read_account,
    ]
    if isinstance(medium.index, KeyRows):
        del calls[4]

    assert not records.available
    for call in calls:
        with pytest.raises(StoreUnavailableError):
            call()
