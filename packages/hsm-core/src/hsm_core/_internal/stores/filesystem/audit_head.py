# SPDX-License-Identifier: MIT
"""Head mark and baseline: the files beside the segments that are no records."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from msgspec.structs import replace

from hsm_core._internal.audit.baseline import Baseline, check_baseline
from hsm_core._internal.audit.facts import MAX_LINE_BYTES
from hsm_core._internal.audit.head_mark import (
    HEAD_BYTES,
    HeadCodec,
    HeadMark,
    StoredHead,
)
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    BASELINE,
    check_file,
    close_quietly,
    closed_names,
    fragment_names,
    is_still_at,
    open_reader,
    replace_file,
    write_all,
)
from hsm_core._internal.stores.filesystem.files import list_directory, read_file
from hsm_core._internal.stores.filesystem.opening import (
    lock_descriptor,
    open_no_follow,
    sibling,
    sync_directory,
)
from hsm_core.errors import AuditTamperedError, IntegrityError

_SYNC_SECONDS: Final = 1.0


def read_head(path: Path, hmac_key: bytes) -> StoredHead | None:
    """
    Return the content of a head file, or None if there is none.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It was altered by another program.
        UnsafeFileModeError: Others could have changed it.
        StoreUnavailableError: It can't be read.
    """
    if not check_file(path):
        return None
    try:
        content = read_file(path, HEAD_BYTES)
    except IntegrityError as error:
        raise tampered(Reason.HEAD_DAMAGED, 0) from error
    return None if content is None else HeadCodec.read(content, hmac_key)


def create_head(path: Path, hmac_key: bytes, log_id: str) -> None:
    """
    Create the head file of an empty log, durably.

    Raises:
        OSError: It can't be written.
        StoreUnavailableError: Its name can't be made durable.
    """
    content = HeadCodec(hmac_key, log_id).new_file()
    replace_file(path.with_name(f"{path.name}.new"), path, content)


class HeadFile:
    """
    Head mark file, open for writing and locked; its lock can't be deleted.

    Without the head file no other process opens the log. After a failure nothing is
    written to its handle any more: only `renew` helps.

    Args:
        path: Its path.

        hmac_key: Key of the log.

    Raises:
        StoreLockedError: Another process has the log open.
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It was altered by another program.
        OSError: It can't be opened.

    Attributes:
        stored: Its content at opening.
        dirty_since: Instant of ``time.monotonic()`` of the first write that was not
            synced yet, or None.
        failed: Whether a write or sync failed since it was opened or renewed.
    """

    def __init__(self, path: Path, hmac_key: bytes) -> None:
        self._path = path
        self._descriptor = self._open()
        try:
            content = os.pread(self._descriptor, HEAD_BYTES + 1, 0)
            self.stored = HeadCodec.read(content, hmac_key)
        except BaseException:
            self.close()
            raise
        self._codec = HeadCodec(hmac_key, self.stored.log_id)
        self._counter = self.stored.counter
        self.dirty_since: float | None = None
        self.failed = False

    def write(self, mark: HeadMark) -> None:
        """
        Write a mark; everything that it names must have been synced.

        Raises:
            OSError: It can't be written; the mark before is still whole.
        """
        self._check()
        self._counter += 1
        offset, slot = self._codec.slot(self._counter, mark)
        self.failed = True
        if os.pwrite(self._descriptor, slot, offset) != len(slot):
            raise OSError("the head mark was written only in part")
        self.failed = False
        if self.dirty_since is None:
            self.dirty_since = time.monotonic()

    def sync(self) -> None:
        """
        Make the newest mark durable.

        Raises:
            OSError: It may not be.
        """
        self._check()
        self.failed = True
        os.fdatasync(self._descriptor)
        self.dirty_since, self.failed = None, False
        failpoint("audit.after_head_sync")

    def due(self) -> float:
        """Return the instant of ``time.monotonic()`` at which a sync is due, or inf."""
        since = self.dirty_since
        return math.inf if since is None else since + _SYNC_SECONDS

    def heal(self, mark: HeadMark) -> None:
        """
        Write a mark durably after a failure, to a new file if that is needed.

        Raises:
            OSError: It can't be written.
            StoreLockedError: Another process has opened the log.
            StoreUnavailableError: The name of a new file can't be made durable.
        """
        if self.failed or not self.is_in_place():
            self.renew(mark)
        else:
            self.write(mark)
            self.sync()

    def finish(self, mark: HeadMark) -> None:
        """
        Write a clean end to both slots, so that neither leads back to an unclean one.

        Raises:
            OSError: It may not be durable.
        """
        clean = replace(mark, clean=True)
        self.write(clean)
        self.write(clean)
        self.sync()

    def is_in_place(self) -> bool:
        """Return whether the file of that name is still the one that is open."""
        return is_still_at(self._descriptor, self._path)

    def renew(self, mark: HeadMark) -> None:
        """
        Replace the file by a new one with this mark, durably.

        Raises:
            OSError: It can't be written; the old one is still in its place.
            StoreLockedError: Another process has opened the log.
            StoreUnavailableError: Its name can't be made durable.
        """
        slots = dict(self._codec.slot(self._counter + n, mark) for n in (1, 2))
        sector = HEAD_BYTES // 3
        content = self._codec.header.ljust(sector, b"\0")
        content += b"".join(slots[offset] for offset in sorted(slots))
        replace_file(
            self._path.with_name(f"{self._path.name}.new"), self._path, content
        )
        descriptor = self._open()
        old, self._descriptor = self._descriptor, descriptor
        self._counter += 2
        self.dirty_since, self.failed = None, False
        close_quietly(old)

    def _open(self) -> int:
        descriptor = open_no_follow(self._path, os.O_RDWR)
        try:
            lock_descriptor(descriptor, self._path)
            if not is_still_at(descriptor, self._path):
                raise OSError("the head file was replaced concurrently")
        except BaseException:
            close_quietly(descriptor)
            raise
        return descriptor

    def _check(self) -> None:
        if self.failed:
            raise OSError("an earlier write or sync of the head mark failed")

    def close(self) -> None:
        """Close the file."""
        close_quietly(self._descriptor)


_CHUNK: Final = 1024 * 1024


class BaselineFile:
    """
    Baseline file; a new one is staged beside it, and renamed over it later.

    Args:
        live: The live segment of the log.

        log_id: 32 hex digits.

        hmac_key: Key of the log.
    """

    def __init__(self, live: Path, log_id: str, hmac_key: bytes) -> None:
        self._path = sibling(live, BASELINE)
        self._staged = live.with_name(f"{self._path.name}.new")
        self._log_id = log_id
        self._hmac_key = hmac_key

    def read(self) -> Baseline | None:
        """
        Return the baseline that counts, checked, or None if there is none.

        Raises:
            AuditTamperedError: It was changed.
            UnsafeFileModeError: Others could have changed it.
            StoreUnavailableError: It can't be examined.
            OSError: It can't be read.
        """
        return self._checked(self._path)

    def read_staged(self) -> Baseline | None:
        """
        Return the one that is staged, or None if there is none that is whole.

        Raises:
            UnsafeFileModeError: Others could have changed it.
            StoreUnavailableError: It can't be examined.
            OSError: It can't be read.
        """
        try:
            return self._checked(self._staged)
        except AuditTamperedError:
            # Torn, so no record tells of it: that is written later.
            return None

    def _checked(self, path: Path) -> Baseline | None:
        if not check_file(path):
            return None
        with open_reader(path) as file:
            return check_baseline(
                _lines(file), log_id=self._log_id, hmac_key=self._hmac_key
            )

    @contextmanager
    def open(self) -> Iterator[Callable[[], Iterable[bytes]]]:
        """
        Open the one that counts; each call returns its lines from the first on.

        Raises:
            AuditTamperedError: It is gone.
            OSError: It can't be read.
        """
        try:
            file = open_reader(self._path)
        except FileNotFoundError:
            raise tampered(Reason.BASELINE, 0) from None

        def lines() -> Iterable[bytes]:
            file.seek(0)
            return _lines(file)

        with file:
            yield lines

    def stage(self, lines: Iterable[bytes]) -> None:
        """
        Write a baseline that does not count yet, durably.

        Raises:
            OSError: It can't be written.
            StoreUnavailableError: Its name can't be made durable.
        """
        self.discard()
        descriptor = open_no_follow(self._staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            for chunk in _chunks(lines):
                write_all(descriptor, chunk)
            failpoint("audit.prune.before_baseline_sync")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._staged.parent)

    def adopt(self) -> None:
        """
        Let the staged one count, durably.

        Raises:
            OSError: It can't be renamed.
            StoreUnavailableError: That can't be made durable.
        """
        self.put_in_place()
        self.settle()

    def put_in_place(self) -> None:
        """
        Give the staged one its name, if it has not got it yet.

        Raises:
            OSError: It can't be renamed.
        """
        with suppress(FileNotFoundError):
            os.rename(self._staged, self._path)

    def settle(self) -> None:
        """
        Make durable what was put in place.

        Raises:
            StoreUnavailableError: It can't be.
        """
        sync_directory(self._path.parent)

    def discard(self) -> None:
        """
        Remove what is staged.

        Raises:
            OSError: It can't be removed.
        """
        with suppress(FileNotFoundError):
            os.unlink(self._staged)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    gathered, size = [], 0
    for line in lines:
        gathered.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def remove_files(live: Path, first_seq: int) -> None:
    """
    Remove what lies beside the live segment of records before *first_seq*.

    Raises:
        OSError: A file can't be removed.
        StoreUnavailableError: The removal can't be made durable.
    """
    names = list_directory(live.parent)[1]
    old = [
        name.of(live.name)
        for name in closed_names(live.name, names)
        if name.first_seq < first_seq
    ]
    # Oldest first, so that what is left is a log that begins later.
    old += [
        name.of(live.name)
        for name in fragment_names(live.name, names)
        if name.seq < first_seq
    ]
    for name in old:
        os.unlink(live.with_name(name))
        failpoint("audit.prune.after_unlink")
    if old:
        sync_directory(live.parent)
        failpoint("audit.prune.after_removal")
