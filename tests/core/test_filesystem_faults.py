# SPDX-License-Identifier: MIT
"""Every file system call of the key store fails once, and from once on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import (
    OutcomeUnknownError,
    StorageFullError,
    StoreUnavailableError,
)
from hsm_core.protocols import KeyStore
from tests.core.filesystem_support import (
    CHANGES,
    SCENARIOS,
    FaultyOS,
    copy,
    failing_sync_of_directories,
    folder_in_memory,
    make_template,
    patched,
    seen,
    struck,
)
from tests.core.filesystem_sweeps import (
    NUMBERS,
    attempt,
    both_states,
    fail_every_call,
    reopened,
)
from tests.core.key_support import key_id_of, operation_of

COMMON = ("EIO", "ENOSPC", "EMFILE")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Give a folder in memory, as this many syncs would take long elsewhere."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a closed store to copy."""
    return make_template(tmp_path_factory.mktemp("template") / "store")


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", COMMON)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fault_at_every_call(
    template: Path, tmp_path: Path, scenario: str, name: str, *, sticky: bool
) -> None:
    """
    Whatever call fails, the answer is true: old or new state, wholly, after a start.
    """
    number = NUMBERS[name]
    calls = fail_every_call(template, tmp_path, scenario, number, sticky=sticky)

    assert calls >= 10


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_full_disk_is_told(template: Path, tmp_path: Path, scenario: str) -> None:
    """
    Where a write finds no room, the answer says so, and works again when there is.
    """
    run = SCENARIOS[scenario]
    _, new = both_states(template, tmp_path, run)
    store = FilesystemKeyStore(copy(template, tmp_path / "full"))
    fake = FaultyOS(struck(errno.ENOSPC, 1, sticky=True).strike, 1, 10**9)
    fake.names = frozenset({"write"})

    error = attempt(store, run, fake)
    run(store)

    assert StorageFullError is type(error)
    assert new == seen(store)
    store.close()


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_poisoned_or_as_before(
    template: Path, tmp_path: Path, scenario: str, *, sticky: bool
) -> None:
    """
    After a failure, the open store shows the old state and works, or shows nothing.
    """
    run = SCENARIOS[scenario]
    old, new = both_states(template, tmp_path, run)
    nth, poisoned = 0, 0
    while True:
        nth += 1
        store = FilesystemKeyStore(copy(template, tmp_path / str(nth)))
        fake = struck(errno.EIO, nth, sticky=sticky)
        error = attempt(store, run, fake)
        if error is not None:
            try:
                found = seen(store)
            except StoreUnavailableError:
                poisoned += 1
                with pytest.raises(StoreUnavailableError):
                    run(store)
            else:
                assert not isinstance(error, OutcomeUnknownError)
                assert old == found
                run(store)
                assert new == seen(store)
        store.close()
        if fake.count < nth:
            break
    assert poisoned


def test_failed_sync_is_not_tried_again(template: Path, tmp_path: Path) -> None:
    """
    After a directory could not be synced no success is reported on this handle.
    """
    store = FilesystemKeyStore(copy(template, tmp_path / "store"))
    fake = failing_sync_of_directories()
    with patched(fake), pytest.raises(OutcomeUnknownError):
        SCENARIOS["edit"](store)

    with pytest.raises(StoreUnavailableError, match="reopen"):
        SCENARIOS["create"](store)

    store.close()
    assert reopened(tmp_path / "store")[1]


@pytest.mark.parametrize("call", ["rotate", "abort", "write_meta"])
def test_failed_sync_before_the_commit(
    template: Path, tmp_path: Path, call: str
) -> None:
    """
    Nor after the directory of a blob, an abort mark or a small value could not be.
    """
    calls: dict[str, Callable[[KeyStore], None]] = {
        "rotate": SCENARIOS["rotate"],
        "abort": lambda store: store.abort(operation_of(90)),
        "write_meta": lambda store: store.write_meta("ring", b"another"),
    }
    store = FilesystemKeyStore(copy(template, tmp_path / "store"))
    fake = failing_sync_of_directories()

    error = attempt(store, calls[call], fake)

    assert StoreUnavailableError is type(error)
    with pytest.raises(StoreUnavailableError, match="reopen"):
        SCENARIOS["create"](store)
    store.close()


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("call", ["abort", "write_meta"])
def test_small_values(
    template: Path, tmp_path: Path, call: str, *, sticky: bool
) -> None:
    """
    Abort marks and small values are old or new too, and never acknowledged wrongly.
    """
    calls: dict[str, Callable[[KeyStore], None]] = {
        "abort": lambda store: store.abort(operation_of(90)),
        "write_meta": lambda store: store.write_meta("ring", b"another" * 50),
    }
    nth = 0
    while True:
        nth += 1
        directory = copy(template, tmp_path / str(nth))
        store = FilesystemKeyStore(directory)
        fake = struck(errno.EIO, nth, sticky=sticky)
        error = attempt(store, calls[call], fake)
        store.close()
        store = FilesystemKeyStore(directory)
        mark = store.find_operation(operation_of(90))
        value = store.read_meta("ring")
        store.close()

        assert mark is None or mark.aborted
        assert value in {b"sealed", b"another" * 50}
        if error is None:
            assert mark is not None if call == "abort" else value != b"sealed"
        if fake.count < nth:
            break
    assert nth > 5


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fault_while_opening_after_a_crash(
    template: Path, tmp_path: Path, scenario: str, number: int, *, sticky: bool
) -> None:
    """
    A start that meets a fault while it tidies fails or succeeds wholly, and harms none.
    """
    old, new = both_states(template, tmp_path, SCENARIOS[scenario])
    torn = copy(template, tmp_path / "torn")
    store = FilesystemKeyStore(torn)
    attempt(store, SCENARIOS[scenario], struck(errno.EIO, 9, sticky=True))
    store.close()
    nth = 0
    while True:
        nth += 1
        directory = copy(torn, tmp_path / str(nth))
        fake = struck(number, nth, sticky=sticky)
        with patched(fake):
            try:
                store = FilesystemKeyStore(directory)
            except StoreUnavailableError:
                pass
            else:
                store.close()
        found, is_in = reopened(directory)

        assert (new if is_in else old) == found
        if fake.count < nth:
            break
    assert nth > 20


@pytest.mark.parametrize("number", NUMBERS.values(), ids=list(NUMBERS))
def test_reading_is_never_not_found(
    template: Path, tmp_path: Path, number: int
) -> None:
    """
    A read that fails is "not available": never "no such key", never "tampered".
    """
    store = FilesystemKeyStore(copy(template, tmp_path / "store"))
    reads: list[Callable[[], object]] = [
        lambda: store.get(key_id_of(2)),
        lambda: store.get_blob(key_id_of(2), 2),
        lambda: list(store.scan()),
        lambda: store.read_meta("ring"),
    ]
    for read in reads:
        nth = 0
        while True:
            nth += 1
            fake = struck(number, nth, sticky=True)
            with patched(fake):
                if nth > fake_calls(read):
                    break
                with pytest.raises(StoreUnavailableError):
                    read()
        assert nth > 4
        read()
    store.close()


def fake_calls(read: Callable[[], object]) -> int:
    """Return how many calls a read makes when nothing fails."""
    fake = FaultyOS()
    with patched(fake):
        read()
    return fake.count


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_short_writes(template: Path, tmp_path: Path, scenario: str) -> None:
    """
    A write that takes one byte at a time is repeated until all is written.
    """
    run = SCENARIOS[scenario]
    _, new = both_states(template, tmp_path, run)
    store = FilesystemKeyStore(copy(template, tmp_path / "short"))
    fake = FaultyOS(lambda name, args: os.write(args[0], args[1][:1]), 1, 10**9)
    fake.names = frozenset({"write"})

    error = attempt(store, run, fake)

    assert error is None
    assert new == seen(store)
    store.close()


def test_write_that_takes_nothing(template: Path, tmp_path: Path) -> None:
    """
    A write that makes no progress ends in an error, not in a loop.
    """
    store = FilesystemKeyStore(copy(template, tmp_path / "store"))
    fake = FaultyOS(lambda name, args: 0, 1, 10**9, frozenset({"write"}))

    error = attempt(store, SCENARIOS["create"], fake)

    assert StoreUnavailableError is type(error)
    store.close()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_order_of_durability(template: Path, tmp_path: Path, scenario: str) -> None:
    """
    Nothing is renamed before it is synced, nothing follows a name that is not.

    A power cut may keep any later change without an earlier one that was not synced.
    """
    store = FilesystemKeyStore(copy(template, tmp_path / "store"))
    fake = FaultyOS(names=CHANGES)
    with patched(fake):
        SCENARIOS[scenario](store)
    store.close()

    contents: set[str] = set()
    names: set[str] = set()
    for name, what in fake.trace:
        if "/index" in str(what) or what == str(tmp_path / "store"):
            # The saved index is only a help, and its journal is never synced.
            continue
        match name:
            case "write":
                contents.add(what)
            case "fsync":
                contents.discard(what)
                names = {path for path in names if os.path.dirname(path) != what}
            case "open" if int(what[1]) & os.O_CREAT:
                names.add(what[0])
            case "rename" | "unlink":
                assert set() == contents
                assert names <= {what[0]}
                names = {what[-1]}
            case _:
                pass
    assert set() == contents | names
