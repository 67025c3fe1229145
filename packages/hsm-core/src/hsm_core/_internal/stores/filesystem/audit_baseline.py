# SPDX-License-Identifier: MIT
"""The file with what is kept of pruned records, and the one that will replace it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from hsm_core._internal.audit.baseline import Baseline, check_baseline
from hsm_core._internal.audit.naming import baseline_name
from hsm_core._internal.audit.record import MAX_LINE_BYTES
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    audit_errors,
    check_file,
    open_reader,
    write_all,
)
from hsm_core._internal.stores.filesystem.files import open_no_follow, sync_directory
from hsm_core.errors import AuditTamperedError

__all__ = ["BaselineFile"]

_CHUNK: Final = 1024 * 1024


class BaselineFile:
    """
    A new baseline is staged beside the one that counts, and takes its name later.

    Args:
        live: The live segment of the trail.

        log_id: 32 hex digits.

        hmac_key: Key of the trail.
    """

    def __init__(self, live: Path, log_id: str, hmac_key: bytes) -> None:
        self._path = live.with_name(baseline_name(live.name))
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
        lines = _lines(path)
        return check_baseline(lines, log_id=self._log_id, hmac_key=self._hmac_key)

    def lines(self) -> Iterator[bytes]:
        """
        Return the lines of the one that counts, as they are read.

        Raises:
            AuditUnavailableError: They can't be.
        """
        with audit_errors():
            yield from _lines(self._path)

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
        # Where it was renamed before, only the directory has to be synced.
        with suppress(FileNotFoundError):
            os.rename(self._staged, self._path)
        sync_directory(self._path.parent)

    def discard(self) -> None:
        """
        Remove what is staged.

        Raises:
            OSError: It can't be removed.
        """
        with suppress(FileNotFoundError):
            os.unlink(self._staged)


def _lines(path: Path) -> Iterator[bytes]:
    with open_reader(path) as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    gathered, size = [], 0
    for line in lines:
        gathered.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)
