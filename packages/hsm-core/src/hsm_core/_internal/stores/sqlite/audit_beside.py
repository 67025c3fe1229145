# SPDX-License-Identifier: MIT
"""
External head mark of an audit log in SQLite, in a file beside the database.

A database that is put back to an older state, for one by deleting its write-ahead log
after a crash, is whole and has the mark of that state. The file knows better: it gets
each mark once its transaction is durable, so a good database is never behind it.
"""

from __future__ import annotations

import math
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from hsm_core._internal.audit.head_mark import (
    HEAD_BYTES,
    HeadCodec,
    HeadMark,
    StoredHead,
)
from hsm_core._internal.audit.medium import Cause
from hsm_core._internal.audit.record import Reason, leaf_hash, tampered
from hsm_core._internal.stores.filesystem.audit_files import head_name, medium_errors
from hsm_core._internal.stores.filesystem.audit_head import (
    HeadFile,
    create_head,
    read_head,
)
from hsm_core._internal.stores.sqlite.audit_rows import read_rows

_SYNC_SECONDS: Final = 1.0


def read_beside(path: Path, hmac_key: bytes) -> StoredHead | None:
    """
    Return the mark beside a database, or None if there is none.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It was changed by other means than ours.
        UnsafeFileModeError: Others could have changed it.
        StoreUnavailableError: It can't be read.
    """
    return read_head(_beside(path), hmac_key)


def peek_beside(path: Path, hmac_key: bytes) -> StoredHead | None:
    """
    Do the same for a copy, which may belong to anybody.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It was changed by other means than ours.
        OSError: It can't be read.
    """
    try:
        with _beside(path).open("rb") as file:
            return HeadCodec.read(file.read(HEAD_BYTES + 1), hmac_key)
    except FileNotFoundError:
        return None


def check_beside(
    connection: sqlite3.Connection, beside: StoredHead, head: StoredHead
) -> None:
    """
    Check that a database is not older than the mark beside it, and holds its record.

    Args:
        connection: Open on the trail.

        beside: The mark beside it.

        head: The mark in it.

    Raises:
        AuditTamperedError: It is older, or another trail, or has other records.
        sqlite3.Error: It can't be read.
    """
    if beside.log_id != head.log_id:
        raise tampered(Reason.LOG_ID, 0)
    seq = beside.mark.seq
    if seq > head.mark.seq:
        raise tampered(Reason.SHORTER, head.mark.seq + 1)
    for found, line in read_rows(connection, seq, 1):
        # If it was pruned, the baseline tells what was there.
        if found == seq and leaf_hash(line) != beside.mark.leaf_hash:
            raise tampered(Reason.MARK, seq)


def _beside(path: Path) -> Path:
    return path.with_name(head_name(path.name))


class ExternalHeadMark:
    """
    The file, open for writing by the one thread that writes the trail.

    Args:
        path: The database.

        hmac_key: Key of the trail.

        log_id: Of the trail.

        stored: What the file says; None if there is none, and it is made.

    Raises:
        OSError: It can't be made or opened.
        StoreUnavailableError: Its name can't be made durable.
    """

    def __init__(
        self, path: Path, hmac_key: bytes, log_id: str, stored: StoredHead | None
    ) -> None:
        place = _beside(path)
        if stored is None:
            create_head(place, hmac_key, log_id)
        self._file = HeadFile(place, hmac_key)

    def write(self, mark: HeadMark) -> None:
        """
        Write a mark whose transaction is durable.

        Raises:
            MediumError: It can't be written.
        """
        with medium_errors(Cause.WRITE):
            self._file.write(mark)

    def due(self) -> float:
        """Return the instant of ``time.monotonic()`` at which `tidy` is due, or inf."""
        since = self._file.dirty_since
        return math.inf if since is None else since + _SYNC_SECONDS

    def tidy(self, mark: HeadMark) -> None:
        """
        Make the newest mark durable if due, and recreate a lost file.

        Args:
            mark: The newest durable one.

        Raises:
            MediumError: It may not be.
        """
        if self.due() > time.monotonic():
            return
        if self._file.is_in_place():
            self.sync()
        else:
            self.heal(mark)

    def sync(self) -> None:
        """
        Make the newest mark durable.

        Raises:
            MediumError: It may not be.
        """
        with medium_errors(Cause.SYNC):
            self._file.sync()

    def heal(self, mark: HeadMark) -> None:
        """
        Write a mark durably after a failure, to a new file if that is needed.

        Raises:
            MediumError: It still can't be.
        """
        with medium_errors(Cause.SYNC):
            if self._file.failed or not self._file.is_in_place():
                self._file.renew(mark)
            else:
                self._file.write(mark)
                self._file.sync()

    def finish(self, mark: HeadMark) -> None:
        """
        Write a mark to both slots, so that neither holds an older one.

        Raises:
            MediumError: It may not be durable.
        """
        clean = replace(mark, clean=True)
        self.write(clean)
        self.write(clean)
        self.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
