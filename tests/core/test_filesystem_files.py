# SPDX-License-Identifier: MIT
"""Tests of the file system calls that all stores in a directory share."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hsm_core._internal.stores.filesystem.files import (
    atomic_write,
    publish_directory,
    read_file,
    remove_temporaries,
    stage_directory,
)
from hsm_core._internal.stores.filesystem.opening import (
    check_private,
    lock_file,
    make_private_directory,
    open_no_follow,
    path_exists,
    sync_directory,
)
from hsm_core._internal.stores.records import UnsettledError
from hsm_core.errors import IntegrityError, StoreUnavailableError, UnsafeFileModeError
from tests.core.filesystem_support import FaultyOS, leftovers, patched, struck
from tests.support import open_files

pytestmark = pytest.mark.usefixtures("private_umask")


def mode_of(path: Path) -> int:
    """Return the permission bits of a file."""
    return path.stat().st_mode & 0o7777


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask for the duration of a block."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class TestAtomicWrite:
    @pytest.mark.parametrize("mask", [0, 0o022, 0o077])
    def test_mode(self, tmp_path: Path, mask: int) -> None:
        """
        The file is private, whatever the umask is and the old file's mode was.
        """
        path = tmp_path / "file"
        path.write_bytes(b"")
        path.chmod(0o666)
        with umask(mask):
            atomic_write(path, b"secret")

        assert 0o600 == mode_of(path)

    def test_link_is_replaced(self, tmp_path: Path) -> None:
        """
        A link at the place of the file is replaced; its target is not touched.
        """
        target, link = tmp_path / "target", tmp_path / "link"
        target.write_bytes(b"theirs")
        link.symlink_to(target)

        atomic_write(link, b"ours")

        assert b"theirs" == target.read_bytes()
        assert not link.is_symlink()

    def test_directory_in_the_way(self, tmp_path: Path) -> None:
        """
        A directory at the place of the file is an error that leaves nothing behind.
        """
        (tmp_path / "file").mkdir()

        with pytest.raises(StoreUnavailableError) as caught:
            atomic_write(tmp_path / "file", b"")

        assert not isinstance(caught.value, UnsettledError)
        assert [] == leftovers(tmp_path)

    def test_rename_that_was_done_after_all(self, tmp_path: Path) -> None:
        """
        A rename that failed and yet was done is not called "nothing changed".
        """

        def strike(name: str, args: tuple[Any, ...]) -> None:
            os.rename(*args)
            raise OSError(errno.EIO, "Input/output error")

        fake = FaultyOS(strike, 1, 1, frozenset({"rename"}))
        with patched(fake), pytest.raises(UnsettledError):
            atomic_write(tmp_path / "file", b"new")

        assert b"new" == (tmp_path / "file").read_bytes()

    def test_no_descriptor_is_lost(self, tmp_path: Path) -> None:
        """
        Whatever call fails, every descriptor is closed again.
        """
        for nth in range(1, 12):
            with patched(struck(errno.EIO, nth, sticky=False)):
                try:
                    atomic_write(tmp_path / "file", b"data")
                    read_file(tmp_path / "file", 10)
                    lock_file(tmp_path / "lock").release()
                except StoreUnavailableError:
                    pass

        assert [] == open_files(tmp_path)

    def test_message_tells_no_path(self, tmp_path: Path) -> None:
        """
        The sentence, which may travel to a client, names no path; the cause is kept.
        """
        with pytest.raises(StoreUnavailableError) as caught:
            atomic_write(tmp_path / "absent" / "file", b"")

        assert "The store of keys or approvals is not available." == str(caught.value)
        assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_directory_whose_name_may_be_lost(tmp_path: Path) -> None:
    """After a failed sync it is made again, and synced, not taken for durable."""
    failure = OSError(errno.EIO, os.strerror(errno.EIO))
    with mock.patch("os.fsync", side_effect=failure):
        with pytest.raises(StoreUnavailableError):
            make_private_directory(tmp_path / "new")

    with mock.patch("os.fsync", side_effect=os.fsync) as synced:
        make_private_directory(tmp_path / "new")

    synced.assert_called_once()


class TestStagedDirectory:
    def test_publish(self, tmp_path: Path) -> None:
        """
        A staged directory appears under its name, private, with all that is in it.
        """
        with umask(0):
            staged = stage_directory(tmp_path, {"a": b"1", "b": b"2"})
        publish_directory(staged, tmp_path / "key")

        assert [tmp_path / "key"] == list(tmp_path.iterdir())
        assert 0o700 == mode_of(tmp_path / "key")
        assert 0o600 == mode_of(tmp_path / "key" / "a")
        assert b"2" == (tmp_path / "key" / "b").read_bytes()

    def test_name_is_taken(self, tmp_path: Path) -> None:
        """
        A directory that is there is not replaced, and the staged one is discarded.
        """
        (tmp_path / "key").mkdir()
        (tmp_path / "key" / "theirs").write_bytes(b"")
        staged = stage_directory(tmp_path, {"a": b"1"})

        with pytest.raises(StoreUnavailableError):
            publish_directory(staged, tmp_path / "key")

        assert ["theirs"] == os.listdir(tmp_path / "key")
        assert [] == leftovers(tmp_path)

    def test_no_descriptor_is_left(self, tmp_path: Path) -> None:
        """What can't be staged for want of descriptors leaves nothing behind."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.open("/dev/null", os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            with pytest.raises(StoreUnavailableError):
                stage_directory(tmp_path, {"a": b"1"})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

        assert not list(tmp_path.iterdir())

    def test_rename_that_was_done_after_all(self, tmp_path: Path) -> None:
        """
        A rename that failed and yet was done is not undone, nor called "nothing".
        """
        staged = stage_directory(tmp_path, {"a": b"1"})

        def strike(name: str, args: tuple[Any, ...]) -> None:
            os.rename(*args)
            raise OSError(errno.EIO, "Input/output error")

        fake = FaultyOS(strike, 1, 1, frozenset({"rename"}))
        with patched(fake), pytest.raises(UnsettledError):
            publish_directory(staged, tmp_path / "key")

        assert b"1" == (tmp_path / "key" / "a").read_bytes()


class TestReadFile:
    def test_too_long(self, tmp_path: Path) -> None:
        """
        A sparse file of a gigabyte is refused without reading a byte of it.
        """
        with (tmp_path / "file").open("wb") as file:
            file.truncate(1 << 30)
        fake = FaultyOS(names=frozenset({"read"}))

        with patched(fake), pytest.raises(IntegrityError, match="longer than 10"):
            read_file(tmp_path / "file", 10)

        assert 0 == fake.count

    def test_grows_while_it_is_read(self) -> None:
        """
        What says that it is empty, and is not, is read up to the limit and no further.
        """
        endless = Path("/proc/self/status")

        with pytest.raises(IntegrityError):
            read_file(endless, 16, private=False)

        assert b"Pid:" in (read_file(endless, 1 << 20, private=False) or b"")

    def test_short_reads(self, tmp_path: Path) -> None:
        """
        A read that gives one byte at a time is repeated until all is there.
        """
        (tmp_path / "file").write_bytes(b"0123456789")
        fake = FaultyOS(lambda name, args: os.read(args[0], 1), 1, 99)
        fake.names = frozenset({"read"})

        with patched(fake):
            found = read_file(tmp_path / "file", 10)

        assert b"0123456789" == found

    def test_no_directory(self, tmp_path: Path) -> None:
        """
        A file where a directory of the path should be is damage, not absence.
        """
        (tmp_path / "file").write_bytes(b"")

        with pytest.raises(IntegrityError):
            read_file(tmp_path / "file" / "below", 10)


class TestOpenNoFollow:
    def test_fifo_without_reader(self, tmp_path: Path) -> None:
        """
        Writing to a FIFO that nobody reads fails instead of waiting.
        """
        os.mkfifo(tmp_path / "fifo")

        with pytest.raises(OSError, match="No such device"):
            open_no_follow(tmp_path / "fifo", os.O_WRONLY)

    def test_not_inherited(self, tmp_path: Path) -> None:
        """
        A program that is started does not get the descriptor.
        """
        descriptor = open_no_follow(tmp_path / "file", os.O_RDWR | os.O_CREAT)

        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        os.close(descriptor)


class TestCheckPrivate:
    def test_another_owner(self, tmp_path: Path) -> None:
        """
        A directory of another user is refused; one of root is not.
        """
        tmp_path.chmod(0o700)
        owner = 54321
        fake = FaultyOS(lambda name, args: _owned_by(args[0], owner), 1, 99)
        fake.names = frozenset({"lstat"})
        with patched(fake):
            with pytest.raises(UnsafeFileModeError, match="user 54321"):
                check_private(tmp_path)
            owner = 0
            check_private(tmp_path)


def _owned_by(path: Path, owner: int) -> os.stat_result:
    found = os.lstat(path)
    return os.stat_result((*found[:4], owner, *found[5:10]))


class TestMakePrivateDirectory:
    def test_with_parents(self, tmp_path: Path) -> None:
        """
        Missing parents are made too, all private, whatever the umask is.
        """
        with umask(0):
            make_private_directory(tmp_path / "a" / "b" / "c")

        assert 0o700 == mode_of(tmp_path / "a")
        assert 0o700 == mode_of(tmp_path / "a" / "b" / "c")

    def test_parent_of_others(self, tmp_path: Path) -> None:
        """
        A parent that was there is left as it is.
        """
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o777)

        make_private_directory(tmp_path / "shared" / "ours")

        assert 0o777 == mode_of(tmp_path / "shared")

    @pytest.mark.parametrize("nth", range(1, 8))
    def test_faults(self, tmp_path: Path, nth: int) -> None:
        """
        Whatever call fails, the error is ours, and trying again works.
        """
        path = tmp_path / "a" / "b"
        with patched(struck(errno.EIO, nth, sticky=True)):
            with pytest.raises(StoreUnavailableError):
                make_private_directory(path)

        make_private_directory(path)

        assert 0o700 == mode_of(path)


class TestLockFile:
    def test_link(self, tmp_path: Path) -> None:
        """
        A link is not locked, nor what it points to created.
        """
        (tmp_path / "lock").symlink_to(tmp_path / "target")

        with pytest.raises(StoreUnavailableError):
            lock_file(tmp_path / "lock")

        assert not (tmp_path / "target").exists()

    def test_no_locks_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A file system without locks is an error of ours, and nothing stays open.
        """

        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)

        with pytest.raises(StoreUnavailableError):
            lock_file(tmp_path / "lock")

        assert [] == open_files(tmp_path)


class TestNames:
    def test_exists(self, tmp_path: Path) -> None:
        """
        A dangling link is there; what can't be examined is an error, not absence.
        """
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")

        assert path_exists(tmp_path / "link")
        assert not path_exists(tmp_path / "absent")
        with patched(struck(errno.EIO, 1, sticky=False)):
            with pytest.raises(StoreUnavailableError):
                path_exists(tmp_path / "link")

    def test_leftover_with_foreign_contents(self, tmp_path: Path) -> None:
        """
        A leftover that holds what we never put there is not removed, but told of.
        """
        (tmp_path / ".tmp-dir" / "below").mkdir(parents=True)

        with pytest.raises(StoreUnavailableError, match="can't be removed"):
            remove_temporaries(tmp_path)

    def test_sync_of_what_is_not_there(self, tmp_path: Path) -> None:
        """
        A directory that can't be synced is an error of ours.
        """
        with pytest.raises(StoreUnavailableError):
            sync_directory(tmp_path / "absent")
