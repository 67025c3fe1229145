# SPDX-License-Identifier: MIT
"""
Baseline file of pruned records, its staged successor, and removal of old files.

Segments are removed oldest first, so that what an interruption leaves is a log that
begins later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from hsm_core._internal.audit.baseline import Baseline, check_baseline
from hsm_core._internal.audit.record import MAX_LINE_BYTES, Reason, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    BASELINE,
    check_file,
    closed_names,
    fragment_names,
    open_reader,
    write_all,
)
from hsm_core._internal.stores.filesystem.files import list_directory
from hsm_core._internal.stores.filesystem.opening import (
    open_no_follow,
    sibling,
    sync_directory,
)
from hsm_core.errors import AuditTamperedError

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
