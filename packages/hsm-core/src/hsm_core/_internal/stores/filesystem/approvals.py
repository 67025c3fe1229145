# SPDX-License-Identifier: MIT
"""
Approval store in a directory: one file per approval, replaced by rename.

All of them are read at opening, for an index in memory. After a failed sync of the
directory the content of the disk is unknown: the store then refuses everything until
`reopen` has rewritten that approval and read all of them again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hsm_core._internal.approvals.records import MAX_RECORD_BYTES, read_entry
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.approval_index import (
    ApprovalIndex,
    check_approval_change,
)
from hsm_core._internal.stores.filesystem.files import (
    UnsettledWriteError,
    atomic_write,
    list_directory,
    read_file,
    remove_file,
    remove_temporaries,
)
from hsm_core._internal.stores.filesystem.healing import renew_directory
from hsm_core._internal.stores.filesystem.opening import (
    check_private,
    lock_directory,
    make_private_directory,
    sync_directory,
)
from hsm_core._internal.stores.naming import is_key_id
from hsm_core.errors import (
    HSMError,
    IntegrityError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
)

_SUFFIX: Final = ".json"
_CLOSED: Final = "The approval store is closed."
_FAILED: Final = "A write failed; reopen the approval store."


class FileApprovalStore(ApprovalStore):
    """
    Records as files of one directory.

    Args:
        directory: Made with mode 0700 if absent.

    Raises:
        StoreLockedError: Another process has it open.
        UnsafeFileModeError: Other users may reach it.
        StoreUnavailableError: It can't be made or read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._index = ApprovalIndex()
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._process = os.getpid()
        self._refusal = ""
        self._unsettled: set[str] = set()
        make_private_directory(directory)
        self._lock = lock_directory(directory)
        try:
            self._load()
        except BaseException:
            self._lock.release()
            raise

    def __repr__(self) -> str:
        return f"<FileApprovalStore {str(self._directory)!r}>"

    def _load(self) -> None:
        remove_temporaries(self._directory)
        entries = []
        for name in list_directory(self._directory)[1]:
            approval_id = name.removesuffix(_SUFFIX)
            if name.endswith(_SUFFIX) and is_key_id(approval_id):
                check_private(self._path(approval_id))
                stored = self._stored(approval_id)
                entries.append(read_entry(approval_id, stored or b""))
        with self._reading:
            self._index.replace(entries)

    def _path(self, approval_id: str) -> Path:
        return self._directory / (approval_id + _SUFFIX)

    def _stored(self, approval_id: str) -> bytes | None:
        # What lies there and is no small plain file has no bytes for us.
        try:
            return read_file(self._path(approval_id), MAX_RECORD_BYTES)
        except IntegrityError:
            return b""

    def _check_usable(self) -> None:
        if self._refusal or self._lock.is_lost:
            raise StoreUnavailableError(self._refusal or _FAILED)
        self._check_process()

    def _check_writable(self) -> None:
        self._check_usable()
        self._lock.check()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StoreUnavailableError(
                "The approval store was opened by the parent process; open it "
                "again in this one."
            )

    @property
    def available(self) -> bool:
        """Whether it is open and locked, and no write has failed."""
        return not (self._refusal or self._lock.is_lost)

    def reopen(self) -> None:
        """Rewrite approvals that may not be durable, and read all again."""
        with self._writing:
            self._check_process()
            if self._refusal == _CLOSED:
                raise StoreUnavailableError(_CLOSED)
            if self.available:
                return
            self._lock.renew()
            for approval_id in sorted(self._unsettled):
                self._settle(approval_id)
            self._load()
            self._unsettled.clear()
            self._refusal = ""

    def _settle(self, approval_id: str) -> None:
        # A missing file can't be rewritten, but its directory can.
        stored = self._stored(approval_id)
        if stored:
            atomic_write(self._path(approval_id), stored)
        else:
            renew_directory(self._directory)

    def get(self, approval_id: str, /) -> bytes | None:
        """
        Return the stored form of an approval, or None if there is none.

        Where one should be and is not, or what is there is no small plain file, it is
        empty.
        """
        self._check_usable()
        if not self._knows(approval_id):
            return None
        stored = self._stored(approval_id)
        if stored:
            return stored
        with self._writing:
            # It may have been removed while it was looked for.
            return (
                self._stored(approval_id) or b"" if self._knows(approval_id) else None
            )

    def _knows(self, approval_id: str) -> bool:
        with self._reading:
            return approval_id in self._index

    def commit(self, change: ApprovalChange, /) -> None:
        """Make one change; see `ApprovalStore.commit`."""
        check_approval_change(change)
        approval_id = change.entry.approval_id
        with self._writing:
            self._check_writable()
            with self._reading:
                self._index.check(change)
            failpoint("approvals.before_record")
            with self._settling([approval_id]):
                atomic_write(self._path(approval_id), change.record)
                failpoint("approvals.after_record")
                with self._reading:
                    self._index.put(change.entry)

    @contextmanager
    def _settling(self, approval_ids: Sequence[str]) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            unsettled = isinstance(error, UnsettledWriteError)
            if isinstance(error, HSMError) and not unsettled:
                raise
            self._unsettled.update(approval_ids)
            self._refusal = _FAILED
            if not isinstance(error, Exception):
                raise
            raise OutcomeUnknownError(
                "The outcome of the change is unknown; reopen the store.",
                approval_id=approval_ids[0],
            ) from error

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Return a page of the index."""
        self._check_usable()
        with self._reading:
            return self._index.find(query)

    def approval_ids(self) -> Sequence[str]:
        """Return all ids, those of unreadable records too."""
        self._check_usable()
        with self._reading:
            return self._index.approval_ids()

    def remove(self, approval_ids: Sequence[str], /) -> None:
        """Delete approvals, durably, where they are there."""
        with self._writing:
            self._check_writable()
            removed = []
            try:
                for approval_id in approval_ids:
                    if self._knows(approval_id):
                        remove_file(self._path(approval_id))
                        removed.append(approval_id)
            finally:
                with self._reading:
                    for approval_id in removed:
                        self._index.remove(approval_id)
                if removed:
                    self._sync_removal(removed)

    def _sync_removal(self, removed: Sequence[str]) -> None:
        with self._settling(removed):
            try:
                sync_directory(self._directory)
            except StoreUnavailableError as error:
                raise UnsettledWriteError from error

    def close(self) -> None:
        """Release the lock, after the commit that is under way."""
        with self._writing:
            self._refusal = _CLOSED
            self._lock.release()
