# SPDX-License-Identifier: MIT
"""What every `UseCounters` promises, run over every implementation."""

from __future__ import annotations

import errno
import stat
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core._internal.stores.guard import guarded
from hsm_core._internal.stores.memory.records import MemoryUseCounters
from hsm_core.errors import (
    InvalidInputError,
    StorageFullError,
    StoreUnavailableError,
)
from hsm_core.protocols import UseCounters
from tests.contract.store_rows import ROWS, StoreRow
from tests.core.filesystem_support import (
    CHANGES,
    FaultyOS,
    as_directory,
    as_fifo,
    as_giant,
    as_link,
    failing_sync_of_directories,
    leftovers,
    patched,
    struck,
)

ONE, TWO = (str(uuid.UUID(int=number, version=4)) for number in (1, 2))
LOUD = "ABCDEF01-0000-4000-8000-000000000001"


@pytest.fixture(params=ROWS, ids=str)
def counters(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UseCounters]:
    """Give open counters without a value."""
    row: StoreRow = request.param
    opened = row.open(tmp_path)
    yield opened.uses
    opened.keys.close()


class TestEveryImplementation:
    def test_put_and_get(self, counters: UseCounters) -> None:
        """
        A material has the value that was put last, and no other material has it.
        """
        counters.put(ONE, b"first")
        counters.put(ONE, b"second")

        assert b"second" == counters.get(ONE)
        assert counters.get(TWO) is None
        assert [ONE] == list(counters.material_ids())

    def test_first_value(self, counters: UseCounters) -> None:
        """
        A first value is there at once, and can be replaced and discarded.
        """
        counters.put_first(ONE, b"first")
        counters.put_first(TWO, b"other")
        counters.put(ONE, b"second")
        counters.discard(TWO)

        assert b"second" == counters.get(ONE)
        assert [ONE] == list(counters.material_ids())

    def test_discard(self, counters: UseCounters) -> None:
        """
        A discarded value is gone, and discarding what is not there is no error.
        """
        counters.put(ONE, b"value")
        counters.put(TWO, b"other")

        counters.discard(ONE)
        counters.discard(ONE)

        assert counters.get(ONE) is None
        assert [TWO] == list(counters.material_ids())

    @pytest.mark.parametrize("name", ["", "..", "../keys", "a/b", "x", LOUD])
    def test_names(self, counters: UseCounters, name: str) -> None:
        """
        What is no material's id reaches no store.
        """
        with pytest.raises(InvalidInputError):
            counters.put(name, b"value")
        with pytest.raises(InvalidInputError):
            counters.get(name)
        with pytest.raises(InvalidInputError):
            counters.discard(name)

    def test_many_threads(self, counters: UseCounters) -> None:
        """
        Threads that write different materials don't disturb each other.
        """
        names = [str(uuid.UUID(int=number, version=4)) for number in range(8)]

        def write(name: str) -> None:
            for number in range(5):
                counters.put(name, f"{name} {number}".encode())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, names))

        assert {f"{name} 4".encode() for name in names} == set(map(counters.get, names))
        assert sorted(names) == sorted(counters.material_ids())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FilesystemKeyStore]:
    """Give an open store with one counter."""
    opened = FilesystemKeyStore(tmp_path / "store")
    opened.uses.put(ONE, b"old")
    yield opened
    opened.close()


def path_of(tmp_path: Path, name: str = ONE) -> Path:
    """Return where a counter lies."""
    return tmp_path / "store" / "uses" / name


class TestFilesystem:
    def test_after_reopening(self, store: FilesystemKeyStore, tmp_path: Path) -> None:
        """
        Values are there after the store was opened again, and private.
        """
        store.close()

        again = FilesystemKeyStore(tmp_path / "store")

        assert b"old" == again.uses.get(ONE)
        assert 0o600 == stat.S_IMODE(path_of(tmp_path).stat().st_mode)
        assert 0o700 == stat.S_IMODE(path_of(tmp_path).parent.stat().st_mode)
        again.close()

    def test_closed(self, store: FilesystemKeyStore) -> None:
        """
        Counters of a closed store answer nothing and take nothing.
        """
        store.close()

        with pytest.raises(StoreUnavailableError):
            store.uses.get(ONE)
        with pytest.raises(StoreUnavailableError):
            store.uses.put(ONE, b"new")
        with pytest.raises(StoreUnavailableError):
            store.uses.material_ids()

    def test_junk(self, store: FilesystemKeyStore, tmp_path: Path) -> None:
        """
        A start removes what interrupted writes left, and leaves other names alone.
        """
        store.close()
        folder = path_of(tmp_path).parent
        for name in (".tmp-0011223344556677", "README", ONE + ".bak"):
            (folder / name).write_bytes(b"junk")
            (folder / name).chmod(0o600)

        again = FilesystemKeyStore(tmp_path / "store")

        assert [ONE] == again.uses.material_ids()
        assert {ONE, "README", ONE + ".bak"} == {path.name for path in folder.iterdir()}
        again.close()

    @pytest.mark.parametrize("spoil", [as_link, as_fifo, as_directory, as_giant])
    def test_no_plain_file(
        self, store: FilesystemKeyStore, tmp_path: Path, spoil: Callable[[Path], None]
    ) -> None:
        """
        What is no small plain file is never read or waited for; it is no value.
        """
        spoil(path_of(tmp_path))

        assert b"" == store.uses.get(ONE)

    def test_every_failing_call(
        self, store: FilesystemKeyStore, tmp_path: Path
    ) -> None:
        """
        Whichever call of a write fails, old or new value stays, and no leftovers.
        """
        outcomes = []
        for nth in range(1, 20):
            fake = struck(5, nth, sticky=False)
            fake.names = CHANGES
            with patched(fake):
                try:
                    store.uses.put(ONE, b"new")
                except StoreUnavailableError as error:
                    outcomes.append(error)
                else:
                    break
            store.reopen()
            assert store.uses.get(ONE) in {b"old", b"new"}
            store.close()
            store.__init__(tmp_path / "store")  # type: ignore[misc]
            assert [] == leftovers(tmp_path)
            store.uses.put(ONE, b"old")
        assert len(outcomes) >= 4

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
    def test_every_failing_call_of_the_first(
        self, store: FilesystemKeyStore, tmp_path: Path, number: int
    ) -> None:
        """
        Whichever call fails that stores a first value, it is there wholly or not.
        """
        failures = 0
        for nth in range(1, 20):
            name = str(uuid.UUID(int=100 + nth, version=4))
            fake = struck(number, nth, sticky=False)
            fake.names = CHANGES
            with patched(fake):
                try:
                    store.uses.put_first(name, b"first")
                except StoreUnavailableError:
                    failures += 1
            store.reopen()
            assert store.uses.get(name) in {None, b"first"}
            assert [] == leftovers(tmp_path)
            if fake.count < nth:
                break
            store.uses.put(name, b"second")
            assert b"second" == store.uses.get(name)
        assert failures >= 4

    def test_first_value_of_a_known_material(self, store: FilesystemKeyStore) -> None:
        """
        A value that is there already is never replaced by a first one.
        """
        with pytest.raises(StoreUnavailableError):
            store.uses.put_first(ONE, b"first")

        assert b"old" == store.uses.get(ONE)

    def test_full_disk(self, store: FilesystemKeyStore) -> None:
        """
        A full disk is told as such, the old value stays, and room makes it work again.
        """
        fake = struck(28, 1, sticky=True)
        fake.names = frozenset({"write"})
        with patched(fake), pytest.raises(StorageFullError):
            store.uses.put(ONE, b"new")

        assert b"old" == store.uses.get(ONE)
        store.uses.put(ONE, b"new")
        assert b"new" == store.uses.get(ONE)

    def test_unsettled(self, store: FilesystemKeyStore, tmp_path: Path) -> None:
        """
        After a sync that failed behind a rename the store waits to be opened again.
        """
        fake = FaultyOS(names=frozenset({"fsync"}))
        with patched(fake):
            store.uses.put(ONE, b"whole")
        last = struck(5, fake.count, sticky=False)
        last.names = frozenset({"fsync"})
        with patched(last), pytest.raises(StoreUnavailableError):
            store.uses.put(ONE, b"new")
        before = store.available
        for call in (
            lambda: store.uses.get(ONE),
            lambda: store.uses.put(ONE, b"newer"),
            lambda: store.uses.discard(ONE),
            store.uses.material_ids,
        ):
            with pytest.raises(StoreUnavailableError, match="reopen"):
                call()

        store.reopen()

        assert [False, True] == [before, store.available]
        assert b"new" == store.uses.get(ONE)
        store.uses.put(ONE, b"newer")
        assert b"newer" == store.uses.get(ONE)
        assert [] == leftovers(tmp_path)

    def test_discard_that_is_not_durable(
        self, store: FilesystemKeyStore, tmp_path: Path
    ) -> None:
        """
        A value whose removal could not be synced is gone when that is settled.
        """
        with patched(failing_sync_of_directories()):
            with pytest.raises(StoreUnavailableError):
                store.uses.discard(ONE)
        store.reopen()

        assert store.uses.get(ONE) is None
        assert not path_of(tmp_path).exists()


def test_foreign_errors(tmp_path: Path) -> None:
    """
    Whatever a third party's counters raise becomes an error of ours.
    """

    class Broken(MemoryUseCounters):
        def get(self, material_id: str, /) -> bytes | None:
            raise RuntimeError("a driver's own")

        def put(self, material_id: str, value: bytes, /) -> None:
            raise RuntimeError("a driver's own")

        def discard(self, material_id: str, /) -> None:
            raise RuntimeError("a driver's own")

        def material_ids(self) -> list[str]:
            raise RuntimeError("a driver's own")

    counters: UseCounters = guarded(Broken())
    for call in (
        lambda: counters.get(ONE),
        lambda: counters.put(ONE, b""),
        lambda: counters.discard(ONE),
        counters.material_ids,
    ):
        with pytest.raises(StoreUnavailableError):
            call()
