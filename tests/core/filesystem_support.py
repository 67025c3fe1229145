# SPDX-License-Identifier: MIT
"""
A file system that fails on demand, and stores to fail it under.

`FaultyOS` stands in for the ``os`` module in the modules of the key store that call
it. It counts calls, writes down what they did, and strikes at one of them or from one
of them on.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hsm_core._internal.keyring.documents import peek
from hsm_core._internal.stores.filesystem import files, key_healing, opening
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.model import KeyId, KeyState
from hsm_core.protocols import KeyStore, OperationMark
from tests.core.key_support import change_of, document_of, key_id_of, operation_of, page

CALLS = frozenset(
    "open close read write fsync rename unlink mkdir rmdir lstat fstat scandir".split()
)
CHANGES = frozenset("open write fsync rename unlink mkdir rmdir".split())


@dataclass
class FaultyOS:
    """
    The ``os`` module, with a fault.

    Attributes:
        strike: Called instead of, or before, the call that fails; it raises or returns
            what the call shall return.
        first: Number of the first call that fails, from 1; 0 for none.
        last: Number of the last one.
        names: Which calls count.
        trace: What was done, in order: name of the call and its first argument.
    """

    strike: Callable[[str, tuple[Any, ...]], Any] | None = None
    first: int = 0
    last: int = 0
    names: frozenset[str] = CALLS
    count: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)
    trace: list[tuple[str, Any]] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.names:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.guard:
                self.count += 1
                number = self.count
            if self.strike and self.first <= number <= self.last:
                if name == "close":
                    real(*args)
                return self.strike(name, args)
            result = real(*args, **kwargs)
            self.note(name, args, result)
            return result

        return call

    def note(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Write a call down, with a path in place of a descriptor."""
        if name == "open":
            self.paths[result] = str(args[0])
        if name in {"write", "fsync", "close"}:
            self.trace.append((name, self.paths.get(args[0], "?")))
        else:
            self.trace.append((name, tuple(str(argument) for argument in args[:2])))


def raising(number: int) -> Callable[[str, tuple[Any, ...]], Any]:
    """Return a strike that fails with an error number."""

    def strike(name: str, args: tuple[Any, ...]) -> Any:
        raise OSError(number, os.strerror(number))

    return strike


@contextmanager
def patched(fake: FaultyOS) -> Iterator[FaultyOS]:
    """Let the stores see *fake* for the duration of a ``with`` block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", fake)
        patch.setattr(opening, "os", fake)
        patch.setattr(key_healing, "os", fake)
        yield fake


def struck(number: int, nth: int, *, sticky: bool) -> FaultyOS:
    """Return a fake whose n-th call fails with an error number, or all from it on."""
    return FaultyOS(raising(number), nth, 10**9 if sticky else nth)


def each_call(number: int, *, sticky: bool) -> Iterator[tuple[int, FaultyOS]]:
    """
    Give fakes that fail at the first call, at the second, and so on, with its number.

    The last of them fails at none, as what it was used for makes no more calls. Every
    other call is left out, and is one that fails where *sticky* is the other; with
    ``FERROHSM_FAULTS=1`` none is.
    """
    is_long = os.environ.get("FERROHSM_FAULTS") == "1"
    first, step = (1, 1) if is_long else (1 + (number + sticky) % 2, 2)
    for nth in itertools.count(first, step):
        fake = struck(number, nth, sticky=sticky)
        yield nth, fake
        if fake.count < nth:
            return


def failing_sync_of_directories() -> FaultyOS:
    """Return a fake whose every fsync of a directory fails, but of temporary ones."""

    def strike(name: str, args: tuple[Any, ...]) -> None:
        path = path_of(args[0])
        if path.is_dir() and not path.name.startswith(".tmp-"):
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(args[0])

    return FaultyOS(strike, 1, 10**9, frozenset({"fsync"}))


def path_of(descriptor: int) -> Path:
    """Return what an open descriptor is of."""
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Give a folder where a sync costs nothing, if there is such a file system."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(dir=memory if usable else None) as folder:
        yield Path(folder)


NAMES = ("new", "third", "renamed")
"""Names that keys of file stores have, or have had."""

Seen = dict[KeyId, tuple[bytes, tuple[bytes | None, ...]]]
"""Of each key the document, and the blobs of the versions that it names."""


def seen(store: KeyStore) -> Seen:
    """
    Return all that a store has committed; reading it must not fail.

    What a crash kept of destroyed versions is discarded first, as a start does.
    """
    found: Seen = {}
    living, named = [], []
    for stored in store.scan():
        document = peek(stored.key_id, stored.document)
        assert document is not None
        gone = [v.version for v in document.versions if v.state is KeyState.DESTROYED]
        store.discard_blobs(stored.key_id, gone)
        if not document.is_destroyed:
            living.append(stored.key_id)
            if document.name:
                named.append((document.name, stored.key_id))
        found[stored.key_id] = (
            store.get(stored.key_id).document,
            tuple(store.get_blob(stored.key_id, v.version) for v in document.versions),
        )
    assert living[::-1] == page(store)
    known = {*NAMES, *(name for name, _ in named)}
    leads = [(n, e.key_id) for n in known if (e := store.entry(n)) is not None]
    assert sorted(named) == sorted(leads)
    return found


def leftovers(directory: Path) -> list[Path]:
    """Return the temporary files and directories below a store."""
    return list(directory.rglob(".tmp-*"))


def make_template(directory: Path) -> Path:
    """Make a closed store with three keys, one of them with two versions."""
    store = FilesystemKeyStore(directory)
    for number, name in ((1, ""), (2, ""), (3, "third")):
        document = document_of(number, name=name, operations=(operation_of(number),))
        store.commit(
            change_of(document, operation_of(number), blobs={1: b"blob-%d" % number})
        )
    rotated = document_of(2, generation=2, versions=2, operations=(operation_of(2),))
    store.commit(change_of(rotated, operation_of(20), blobs={2: b"blob-2-2"}))
    store.write_meta("ring", b"sealed")
    store.close()
    return directory


def copy(template: Path, to: Path) -> Path:
    """Return a copy of a store, modes and all."""
    shutil.copytree(template, to)
    return to


def create(store: KeyStore) -> None:
    """Make a key with one version."""
    document = document_of(9, name="new", operations=(operation_of(90),))
    store.commit(change_of(document, operation_of(90), blobs={1: b"fresh" * 100}))


def create_ahead(store: KeyStore) -> None:
    """Make the same key, written ahead of its commit."""
    document = document_of(9, name="new", operations=(operation_of(90),))
    change = change_of(document, operation_of(90), blobs={1: b"fresh" * 100})
    store.stage(change.entry.key_id, change.document, change.blobs)
    try:
        store.commit(change)
    finally:
        store.discard_staged(change.entry.key_id)


def rotate(store: KeyStore) -> None:
    """Give a key a second version."""
    document = document_of(1, generation=2, versions=2, operations=(operation_of(90),))
    store.commit(change_of(document, operation_of(90), blobs={2: b"fresh" * 100}))


def edit(store: KeyStore) -> None:
    """Change the document of a key alone."""
    document = document_of(
        3,
        generation=2,
        name="third",
        tags=("t",),
        operations=(operation_of(90),),
    )
    store.commit(change_of(document, operation_of(90)))


def rename(store: KeyStore) -> None:
    """Give a key another name, which frees the one that it had."""
    document = document_of(
        3, generation=2, name="renamed", operations=(operation_of(90),)
    )
    store.commit(change_of(document, operation_of(90)))


def destroy(store: KeyStore) -> None:
    """Destroy the material of a key."""
    document = document_of(
        1, generation=2, state=KeyState.DESTROYED, operations=(operation_of(90),)
    )
    store.commit(change_of(document, operation_of(90), removed_blobs=(1,)))


SCENARIOS: dict[str, Callable[[KeyStore], None]] = {
    "create": create,
    "ahead": create_ahead,
    "rotate": rotate,
    "edit": edit,
    "rename": rename,
    "destroy": destroy,
}
"""Mutations of a template store; the operation id of each is number 90."""


COUNTER = key_id_of(40)
OTHER_COUNTER = key_id_of(41)


def _mark(store: FilesystemKeyStore) -> object:
    return store.find_operation(operation_of(90))


def _counter(store: FilesystemKeyStore) -> object:
    return store.uses.get(COUNTER)


@dataclass(frozen=True)
class SmallWrite:
    """
    A write of one file that is no document.

    Attributes:
        run: Makes it, where `prepare_small` was called.
        read: Returns what it changes.
        old: What that is before.
        new: What that is afterwards.
    """

    run: Callable[[FilesystemKeyStore], object]
    read: Callable[[FilesystemKeyStore], object]
    old: object
    new: object


SMALL_WRITES = {
    "abort": SmallWrite(
        lambda store: store.abort(operation_of(90)),
        _mark,
        None,
        OperationMark(key_id=None, aborted=True),
    ),
    "value": SmallWrite(
        lambda store: store.write_meta("ring", b"another" * 50),
        lambda store: store.read_meta("ring"),
        b"sealed",
        b"another" * 50,
    ),
    "counter": SmallWrite(
        lambda store: store.uses.put(COUNTER, b"new"), _counter, b"old", b"new"
    ),
    "discarded counter": SmallWrite(
        lambda store: store.uses.discard(COUNTER), _counter, b"old", None
    ),
    "discarded blob": SmallWrite(
        lambda store: store.discard_blobs(key_id_of(1), [1]),
        lambda store: store.get_blob(key_id_of(1), 1),
        b"blob-1",
        None,
    ),
    "first counter": SmallWrite(
        lambda store: store.uses.put_first(OTHER_COUNTER, b"first"),
        lambda store: store.uses.get(OTHER_COUNTER),
        None,
        b"first",
    ),
}


def prepare_small(store: FilesystemKeyStore) -> None:
    """Make what some of the small writes replace."""
    store.uses.put(COUNTER, b"old")


def key_path(directory: Path, number: int) -> Path:
    """Return the directory of a key."""
    return directory / "keys" / key_id_of(number)


def as_link(path: Path) -> None:
    """Replace a file by a link to a copy of it elsewhere."""
    target = path.parents[3] / "elsewhere"
    shutil.move(path, target)
    path.symlink_to(target)


def as_fifo(path: Path) -> None:
    """Replace a file by a FIFO that nobody writes."""
    path.unlink()
    os.mkfifo(path)


def as_directory(path: Path) -> None:
    """Replace a file by a directory."""
    path.unlink()
    path.mkdir()


def as_giant(path: Path) -> None:
    """Make a file a gigabyte long, without a byte on the disk."""
    os.truncate(path, 1 << 30)


def as_junk(path: Path) -> None:
    """Replace the content of a file."""
    path.write_bytes(b"\xff" * 1000)


def as_empty(path: Path) -> None:
    """Make a file empty."""
    os.truncate(path, 0)
