# SPDX-License-Identifier: MIT
"""Every file system call of the key store fails once, and from once on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import StorageFullError, StoreUnavailableError
from tests.core.filesystem_support import (
    CHANGES,
    SCENARIOS,
    SMALL_WRITES,
    FaultyOS,
    copy,
    each_call,
    leftovers,
    patched,
    prepare_small,
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
from tests.core.key_support import key_id_of
from tests.support import open_files

COMMON = ("EIO", "ENOSPC", "EMFILE")


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", COMMON)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fault_at_every_call(
    store_template: Path, memory_path: Path, scenario: str, name: str, *, sticky: bool
) -> None:
    """
    Whatever call fails, the answer is true: old or new state, wholly, after a start.
    """
    number = NUMBERS[name]
    calls = fail_every_call(
        store_template, memory_path, scenario, number, sticky=sticky
    )

    assert calls >= 10


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_full_disk_is_told(
    store_template: Path, memory_path: Path, scenario: str
) -> None:
    """
    Where a write finds no room, the answer says so, and works again when there is.
    """
    run = SCENARIOS[scenario]
    _, new = both_states(store_template, memory_path, run)
    store = FilesystemKeyStore(copy(store_template, memory_path / "full"))
    fake = FaultyOS(struck(errno.ENOSPC, 1, sticky=True).strike, 1, 10**9)
    fake.names = frozenset({"write", "mkdir"})

    error = attempt(store, run, fake)

    assert StorageFullError is type(error)
    assert store.available
    run(store)
    assert new == seen(store)
    store.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(
    ("name", "sticky"),
    [(name, sticky) for name in ("abort", "value", "counter") for sticky in (0, 1)]
    + [("first counter", 0)],
)
def test_small_writes(
    store_template: Path, memory_path: Path, name: str, number: int, sticky: int
) -> None:
    """
    Abort marks, values and counters are old or new too, and never falsely answered.
    """
    write = SMALL_WRITES[name]
    failures = 0
    for nth, fake in each_call(number, sticky=bool(sticky)):
        directory = copy(store_template, memory_path / str(nth))
        store = FilesystemKeyStore(directory)
        prepare_small(store)
        error = attempt(store, write.run, fake)
        store.reopen()
        found = write.read(store)
        store.close()
        store = FilesystemKeyStore(directory)

        assert found == write.read(store)
        assert found in ([write.new] if error is None else [write.old, write.new])
        assert [] == leftovers(directory)
        store.close()
        failures += error is not None
    assert failures >= 3


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fault_while_opening_after_a_crash(
    store_template: Path, memory_path: Path, scenario: str, number: int, *, sticky: bool
) -> None:
    """
    A start that meets a fault while it tidies fails or succeeds wholly, and harms none.
    """
    old, new = both_states(store_template, memory_path, SCENARIOS[scenario])
    torn = copy(store_template, memory_path / "torn")
    store = FilesystemKeyStore(torn)
    attempt(store, SCENARIOS[scenario], struck(errno.EIO, 9, sticky=True))
    store.close()
    for nth, fake in each_call(number, sticky=sticky):
        directory = copy(torn, memory_path / str(nth))
        with patched(fake):
            try:
                store = FilesystemKeyStore(directory)
            except StoreUnavailableError:
                assert [] == open_files(directory)
            else:
                store.close()
        found, is_in = reopened(directory)

        assert (new if is_in else old) == found
    assert nth > 20


@pytest.mark.parametrize("number", NUMBERS.values(), ids=list(NUMBERS))
def test_reading_is_never_not_found(
    store_template: Path, memory_path: Path, number: int
) -> None:
    """
    A read that fails is "not available": never "no such key", never "tampered".
    """
    store = FilesystemKeyStore(copy(store_template, memory_path / "store"))
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
def test_short_writes(store_template: Path, memory_path: Path, scenario: str) -> None:
    """
    A write that takes one byte at a time is repeated until all is written.
    """
    run = SCENARIOS[scenario]
    _, new = both_states(store_template, memory_path, run)
    store = FilesystemKeyStore(copy(store_template, memory_path / "short"))
    fake = FaultyOS(lambda name, args: os.write(args[0], args[1][:1]), 1, 10**9)
    fake.names = frozenset({"write"})

    error = attempt(store, run, fake)

    assert error is None
    assert new == seen(store)
    store.close()


def test_write_that_takes_nothing(store_template: Path, memory_path: Path) -> None:
    """
    A write that makes no progress ends in an error, not in a loop.
    """
    store = FilesystemKeyStore(copy(store_template, memory_path / "store"))
    fake = FaultyOS(lambda name, args: 0, 1, 10**9, frozenset({"write"}))

    error = attempt(store, SCENARIOS["create"], fake)

    assert StoreUnavailableError is type(error)
    store.close()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_order_of_durability(
    store_template: Path, memory_path: Path, scenario: str
) -> None:
    """
    Nothing is renamed before it is synced, nothing follows a name that is not.

    A power cut may keep any later change without an earlier one that was not synced.
    """
    store = FilesystemKeyStore(copy(store_template, memory_path / "store"))
    fake = FaultyOS(names=CHANGES)
    with patched(fake):
        SCENARIOS[scenario](store)
    store.close()

    contents: set[str] = set()
    names: set[str] = set()
    for name, what in fake.trace:
        if "/index" in str(what) or what == str(memory_path / "store"):
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
