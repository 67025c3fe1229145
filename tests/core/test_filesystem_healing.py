# SPDX-License-Identifier: MIT
"""A key store whose write failed is opened again, and loses nothing by it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import KeyTamperedError, OutcomeUnknownError, StoreUnavailableError
from hsm_core.protocols import KeyStore
from tests.core.filesystem_child import POINTS
from tests.core.filesystem_support import (
    CHANGES,
    COUNTER,
    SCENARIOS,
    SMALL_WRITES,
    FaultyOS,
    Seen,
    as_directory,
    as_link,
    copy,
    each_call,
    failing_sync_of_directories,
    key_path,
    leftovers,
    patched,
    path_of,
    prepare_small,
    seen,
)
from tests.core.filesystem_sweeps import attempt, both_states
from tests.core.key_support import change_of, document_of, key_id_of, operation_of, page
from tests.support import REPOSITORY


@pytest.fixture
def store(store_template: Path, memory_path: Path) -> Iterator[FilesystemKeyStore]:
    """Give an open copy of it."""
    opened = FilesystemKeyStore(copy(store_template, memory_path / "store"))
    yield opened
    opened.close()


def is_in(store: KeyStore) -> bool:
    """Return whether the operation of a scenario is in the store."""
    mark = store.find_operation(operation_of(90))
    return mark is not None and not mark.aborted


def check(store: FilesystemKeyStore, directory: Path, old: Seen, new: Seen) -> None:
    """Check that a store is old or new, tidy, and the same after a start."""
    found, made = seen(store), is_in(store)
    assert (new if made else old) == found
    store.close()
    again = FilesystemKeyStore(directory)
    assert [] == leftovers(directory)
    assert (found, made) == (seen(again), is_in(again))
    again.close()


def unavailable(store: FilesystemKeyStore) -> None:
    """Check that a store answers nothing and takes nothing."""
    assert not store.available
    calls: list[Callable[[], object]] = [
        lambda: store.get(key_id_of(1)),
        lambda: store.get_blob(key_id_of(1), 1),
        lambda: store.entry(key_id_of(1)),
        lambda: page(store),
        lambda: list(store.scan()),
        lambda: list(store.digests()),
        lambda: store.refresh(key_id_of(1)),
        lambda: store.find_operation(operation_of(1)),
        lambda: store.abort(operation_of(91)),
        lambda: store.discard_blobs(key_id_of(1), [1]),
        lambda: store.read_meta("ring"),
        lambda: store.write_meta("ring", b""),
        store.uses.material_ids,
        lambda: store.uses.get(COUNTER),
        lambda: store.uses.put(COUNTER, b""),
        lambda: store.uses.discard(COUNTER),
        store.rebuild,
        lambda: store.reindex([]),
        lambda: store.commit(change_of(document_of(8), operation_of(8))),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError, match="reopen"):
            call()


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_failure_is_healed(
    store_template: Path, memory_path: Path, scenario: str, *, sticky: bool
) -> None:
    """
    Whichever call failed, opening again gives the old or the new state, and works.
    """
    old, new = both_states(store_template, memory_path, SCENARIOS[scenario])
    run, healed = SCENARIOS[scenario], 0
    for nth, fake in each_call(errno.EIO, sticky=sticky):
        directory = copy(store_template, memory_path / str(nth))
        store = FilesystemKeyStore(directory)
        error = attempt(store, run, fake)
        if not store.available:
            healed += 1
            unavailable(store)
            store.reopen()
            assert [] == leftovers(directory)
        elif error is not None:
            assert not isinstance(error, OutcomeUnknownError)
            assert old == seen(store)
        assert store.available
        if not is_in(store):
            run(store)
        assert new == seen(store)
        check(store, directory, old, new)
    assert healed


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fault_while_opening_again(
    store_template: Path, memory_path: Path, scenario: str, number: int, *, sticky: bool
) -> None:
    """
    A failure of the repair leaves the store unavailable, and the next one is whole.
    """
    old, new = both_states(store_template, memory_path, SCENARIOS[scenario])
    for nth, fake in each_call(number, sticky=sticky):
        directory = copy(store_template, memory_path / str(nth))
        store = FilesystemKeyStore(directory)
        attempt(store, SCENARIOS[scenario], failing_sync_of_directories())
        error = attempt(store, lambda s: s.reopen(), fake)
        if error is not None:
            assert isinstance(error, StoreUnavailableError)
            unavailable(store)
            store.reopen()
        check(store, directory, old, new)
    assert nth > 10


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_is_found_is_written_afresh(
    store_template: Path, memory_path: Path, scenario: str
) -> None:
    """
    No sync is trusted that follows a failed one: new files, new names, new syncs.
    """
    directory = copy(store_template, memory_path / "store")
    store = FilesystemKeyStore(directory)
    attempt(store, SCENARIOS[scenario], failing_sync_of_directories())
    numbers = {
        "create": 9,
        "ahead": 9,
        "rotate": 1,
        "edit": 3,
        "rename": 3,
        "destroy": 1,
    }
    folder, is_new = key_path(directory, numbers[scenario]), numbers[scenario] == 9
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    fake = FaultyOS(names=CHANGES)
    with patched(fake):
        store.reopen()
    store.close()

    fresh = {
        path.name for path in folder.iterdir() if path.stat().st_ino != before[path]
    }
    renamed = [what[-1] for name, what in fake.trace if name == "rename"]
    synced = [what for name, what in fake.trace if name == "fsync"]
    if is_new:
        assert {"key.json", "v00000001"} == fresh
        assert [str(folder), str(folder.parent)] == [renamed[-1], synced[-1]]
    else:
        assert fresh == {"v00000002" if scenario == "rotate" else "key.json"}
        assert [str(folder / name) for name in fresh] == renamed
        assert str(folder) == synced[-1]
    # Each new file is synced before its name.
    assert 3 == len(set(synced[:-1])) if is_new else 2 == len(synced)


@pytest.mark.parametrize("name", list(SMALL_WRITES)[:-1])
def test_small_writes(store: FilesystemKeyStore, memory_path: Path, name: str) -> None:
    """
    Marks, values, counters and deletes are settled too, to what a start would find.
    """
    write = SMALL_WRITES[name]
    prepare_small(store)
    error = attempt(store, write.run, failing_sync_of_directories())
    assert isinstance(error, StoreUnavailableError)
    assert not isinstance(error, OutcomeUnknownError)
    unavailable(store)

    store.reopen()

    assert write.new == write.read(store)
    assert [] == leftovers(memory_path)


def test_blob_before_the_commit(store: FilesystemKeyStore) -> None:
    """
    A blob whose directory could not be synced leaves the document as it was.
    """
    before = seen(store)
    error = attempt(store, SCENARIOS["rotate"], failing_sync_of_directories())
    assert StoreUnavailableError is type(error)
    unavailable(store)

    store.reopen()

    assert before == seen(store)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_foreign_exception(
    store: FilesystemKeyStore, scenario: str, point: str, error: type[BaseException]
) -> None:
    """
    An unforeseen exception before the commit changes nothing; after it, it is settled.
    """
    before = seen(store)
    passed: list[str] = []

    def fail(name: str) -> None:
        if name in POINTS:
            passed.append(name)
        if name == point:
            raise error

    committed = point in POINTS[3:]
    told = committed and error is RuntimeError
    with install(fail), pytest.raises(OutcomeUnknownError if told else error):
        SCENARIOS[scenario](store)

    assert POINTS[: len(passed)] == passed
    if committed:
        unavailable(store)
        store.reopen()
    else:
        assert before == seen(store)
    assert committed == is_in(store)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_file_that_could_not_be_synced(
    store: FilesystemKeyStore, scenario: str
) -> None:
    """
    It is thrown away: nothing changed, the store goes on, the next write has another.
    """
    before = seen(store)
    failed: list[str] = []
    opened: list[str] = []

    def fail(name: str, args: tuple[Any, ...]) -> None:
        path = path_of(args[0])
        if failed or ".tmp-" not in str(path):
            os.fsync(args[0])
            return
        failed.append(str(path))
        raise OSError(errno.EIO, "Input/output error")

    def watch(name: str, args: tuple[Any, ...]) -> int:
        opened.append(str(args[0]))
        return os.open(*args)

    error = attempt(
        store, SCENARIOS[scenario], FaultyOS(fail, 1, 10**9, frozenset({"fsync"}))
    )
    assert StoreUnavailableError is type(error)
    assert store.available
    assert before == seen(store)
    with patched(FaultyOS(watch, 1, 10**9, frozenset({"open"}))):
        SCENARIOS[scenario](store)

    assert [False] == [os.path.exists(path) for path in failed]
    assert not set(failed) & set(opened)
    assert is_in(store)


@pytest.mark.parametrize("odd", [as_link, as_directory])
def test_what_somebody_put_there_meanwhile(
    store: FilesystemKeyStore, memory_path: Path, odd: Callable[[Path], None]
) -> None:
    """
    What lies at an unsettled path and is no file of ours is not copied; it is damage.
    """
    attempt(store, SCENARIOS["edit"], failing_sync_of_directories())
    odd(key_path(memory_path / "store", 3) / "key.json")

    store.reopen()

    assert b"" == store.get(key_id_of(3)).document
    assert b"" != store.get(key_id_of(1)).document


def test_new_key_that_somebody_changed_meanwhile(
    store: FilesystemKeyStore, memory_path: Path
) -> None:
    """
    Nor is a new key's directory with foreign things in it, or without its document.
    """
    attempt(store, SCENARIOS["create"], failing_sync_of_directories())
    folder = key_path(memory_path / "store", 9)
    (folder / "foreign").mkdir()
    (folder / "key.json").unlink()

    store.reopen()

    with pytest.raises(KeyTamperedError, match="missing"):
        store.get(key_id_of(9))
    assert (folder / "foreign").is_dir()


def test_blob_whose_key_is_gone(store: FilesystemKeyStore, memory_path: Path) -> None:
    """
    A key that disappeared while a blob of it was unsettled stays away.
    """
    attempt(store, SCENARIOS["rotate"], failing_sync_of_directories())
    shutil.rmtree(key_path(memory_path / "store", 1))

    store.reopen()

    with pytest.raises(KeyTamperedError, match="missing"):
        store.get(key_id_of(1))


def test_removal_that_was_done_after_all(
    store: FilesystemKeyStore, memory_path: Path
) -> None:
    """
    A removal that failed and yet was done is not called "nothing changed".
    """

    def strike(name: str, args: tuple[Any, ...]) -> None:
        os.unlink(*args)
        raise OSError(errno.EIO, "Input/output error")

    fake = FaultyOS(strike, 1, 1, frozenset({"unlink"}))

    error = attempt(store, lambda s: s.discard_blobs(key_id_of(1), [1]), fake)
    unavailable(store)
    store.reopen()

    assert isinstance(error, StoreUnavailableError)
    assert store.get_blob(key_id_of(1), 1) is None


def test_interrupted_write(store: FilesystemKeyStore) -> None:
    """
    A write that was interrupted from outside is unsettled, whatever it had done.
    """

    def interrupt(name: str, args: tuple[Any, ...]) -> None:
        raise KeyboardInterrupt

    for nth in range(1, 30):
        fake = FaultyOS(interrupt, nth, nth, CHANGES)
        with patched(fake):
            try:
                store.write_meta("ring", b"number %d" % nth)
            except KeyboardInterrupt:
                pass
        store.reopen()
        assert store.read_meta("ring") in {b"sealed", b"number %d" % nth}
        store.write_meta("ring", b"sealed")
        if fake.count < nth:
            break
    assert nth > 4


def test_nothing_failed(store: FilesystemKeyStore) -> None:
    """
    Opening again what is whole makes no call.
    """
    fake = FaultyOS()
    with patched(fake):
        store.reopen()

    assert 0 == fake.count


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill_while_opening_again(
    store_template: Path, memory_path: Path, scenario: str
) -> None:
    """
    SIGKILL before each changing call of the repair: old state or new, and tidy.
    """
    old, new = both_states(store_template, memory_path, SCENARIOS[scenario])
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.core.filesystem_child",
            str(store_template),
            str(memory_path),
            scenario,
            "heal",
        ],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    directories = sorted(memory_path.glob("call-*"))
    assert int(answer.stdout) == len(directories) > 4
    for directory in directories:
        check(FilesystemKeyStore(directory), directory, old, new)
