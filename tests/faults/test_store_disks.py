# SPDX-License-Identifier: MIT
"""A key store in files on disks that are full, read-only, crowded, or out of reach."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import StorageFullError, StoreUnavailableError
from tests.core.filesystem_support import (
    SCENARIOS,
    copy,
    folder_in_memory,
    make_template,
    seen,
)
from tests.core.key_support import change_of, document_of, key_id_of, operation_of, page
from tests.faults.powercut import why_not
from tests.support import no_descriptors, require_mounts


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder in memory."""
    with folder_in_memory() as found:
        yield found


@pytest.fixture
def mount(folder: Path) -> Iterator[Callable[[str], Path]]:
    """Give a function that mounts a file system of its own, with these options."""
    require_mounts(why_not())
    with ExitStack() as stack:

        def make(options: str) -> Path:
            at = folder / "disk"
            at.mkdir()
            _call("mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "none", at)
            stack.callback(_call, "umount", "--lazy", at)
            return at

        yield make


def _call(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)


def fill(store: FilesystemKeyStore, first: int) -> None:
    """Make keys, numbered from *first* on, until there is no room for another."""
    for number in range(first, first + 10_000):
        document = document_of(number, operations=(operation_of(number),))
        store.commit(change_of(document, operation_of(number), blobs={1: b"x" * 2000}))


@pytest.mark.parametrize("options", ["size=512k", "size=8m,nr_inodes=60"])
def test_full_disk(mount: Callable[[str], Path], folder: Path, options: str) -> None:
    """
    Without room, or without inodes, it is told so, all is as it was, and goes on later.
    """
    template = make_template(folder / "template")
    disk = mount(options)
    fillers = [disk / f"filler-{number}" for number in range(5)]
    for filler in fillers:
        filler.write_bytes(bytes(8192))
    store = FilesystemKeyStore(copy(template, disk / "store"))
    with pytest.raises(StorageFullError):
        fill(store, 100)
    before = seen(store)
    with pytest.raises(StorageFullError):
        fill(store, 20_000)
    assert store.available
    assert before == seen(store)
    store.close()
    store = FilesystemKeyStore(disk / "store")
    assert before == seen(store)

    for filler in fillers:
        filler.unlink()
    SCENARIOS["create"](store)
    after = seen(store)
    store.close()

    store = FilesystemKeyStore(disk / "store")
    assert after == seen(store)
    assert len(before) + 1 == len(after)
    store.close()


def test_read_only_disk(mount: Callable[[str], Path], folder: Path) -> None:
    """
    On a disk that became read-only keys are read and not changed, until it is not.
    """
    template = make_template(folder / "template")
    disk = mount("size=8m")
    store = FilesystemKeyStore(copy(template, disk / "store"))
    before = seen(store)
    _call("mount", "--bind", disk, disk)
    _call("mount", "-o", "remount,bind,ro", disk)
    for scenario in SCENARIOS.values():
        with pytest.raises(StoreUnavailableError):
            scenario(store)
    with pytest.raises(StoreUnavailableError):
        store.abort(operation_of(5))
    with pytest.raises(StoreUnavailableError):
        store.uses.put(key_id_of(1), b"value")
    assert before == seen(store)

    _call("umount", disk)
    store.reopen()
    SCENARIOS["edit"](store)
    after = seen(store)
    store.close()

    store = FilesystemKeyStore(disk / "store")
    assert after == seen(store)
    store.close()


def test_no_descriptors(folder: Path) -> None:
    """
    Without a free descriptor nothing is "not found" or damaged, and later all works.
    """
    store = FilesystemKeyStore(make_template(folder / "store"))
    before = seen(store)
    calls: list[Callable[[], object]] = [
        lambda: store.get(key_id_of(1)),
        lambda: store.get_blob(key_id_of(1), 1),
        lambda: list(store.scan()),
        lambda: store.refresh(key_id_of(1)),
        lambda: store.read_meta("ring"),
        lambda: store.uses.get(key_id_of(1)),
        lambda: store.uses.material_ids(),
        lambda: SCENARIOS["edit"](store),
        store.rebuild,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError), no_descriptors():
            call()
    if not store.available:
        store.reopen()

    assert before == seen(store)
    assert [key_id_of(n) for n in (3, 2, 1)] == page(store)
    SCENARIOS["edit"](store)
    store.close()


def test_start_with_100_000_foreign_files(folder: Path) -> None:
    """
    Any number of foreign files costs a start no more than looking at their names.
    """
    directory = make_template(folder / "store")
    for number in range(100_000):
        os.mknod(directory / "keys" / f"junk-{number}")
    started = time.perf_counter()

    store = FilesystemKeyStore(directory)

    assert time.perf_counter() - started < 60
    assert [key_id_of(n) for n in (3, 2, 1)] == page(store)
    store.close()
