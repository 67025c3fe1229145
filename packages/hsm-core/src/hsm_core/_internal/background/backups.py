# SPDX-License-Identifier: MIT
"""
Backups of databases in use.

The copying of keys and trail ends while no key is changed: a change is in both copies,
or it is one that recovery settles at the next start. The longest part is done before,
so that changes wait for the end alone. All of it is sealed or authenticated. A folder
has the name of a backup once it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from hsm_core._internal.stores.filesystem.opening import (
    make_private_directory,
    storage_errors,
    sync_directory,
)
from hsm_core._internal.time.clock import instant
from hsm_core.errors import (
    AuditUnavailableError,
    StoreUnavailableError,
    UnsupportedOperationError,
)
from hsm_core.operations import BackedUpFile, BackUp
from hsm_core.protocols import AuditDraft, AuditLog, Clock

Copier: TypeAlias = Callable[[Path, Callable[[], None]], None]
"""
Copies a database into a new file.

Calls back once near the end; writes made before the callback returns are copied too.
"""

_CHUNK: Final = 1024 * 1024
_UNFINISHED: Final = ".unfinished"


class Backups:
    """
    Copies all databases of an HSM.

    Args:
        directory: Where a folder is made for each backup; None refuses them.

        copiers: The databases, by the name of their copy; the last is copied to the
            end after all others, and is the audit log.

        audit: The audit log.

        clock: For the name of the folder.

        resting: Held while copying ends; no key is changed meanwhile.
    """

    def __init__(
        self,
        directory: Path | None,
        copiers: Mapping[str, Copier],
        audit: AuditLog,
        clock: Clock,
        resting: AbstractContextManager[object],
    ) -> None:
        self._directory = directory
        self._copiers = copiers
        self._audit = audit
        self._clock = clock
        self._resting = resting

    def make(self) -> BackUp:
        """
        Copy all of them into a new folder.

        Raises:
            UnsupportedOperationError: There is no directory for backups, or no
                database.
            StorageFullError: There is no room.
            StoreUnavailableError: A copy can't be written.
            AuditUnavailableError: The audit log can't be written, or only its reserve.
        """
        if self._directory is None:
            raise UnsupportedOperationError(
                "No backup directory is configured. Set backup_dir (--backup-dir)."
            )
        if not self._copiers:
            raise UnsupportedOperationError(
                "Nothing to back up: no store is a SQLite database."
            )
        self._check_audit()
        now = instant(self._clock.now()).strftime("%Y%m%dT%H%M%S.%fZ")
        make_private_directory(self._directory)
        unfinished = self._directory / f"{now}{_UNFINISHED}"
        with storage_errors():
            os.mkdir(unfinished, 0o700)
            try:
                made = self._copy(unfinished, now)
                self._check_audit()
                # A folder that is there is another backup, and stays.
                os.rename(unfinished, self._directory / now)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        sync_directory(self._directory)
        return made

    def _check_audit(self) -> None:
        """Refuse to make a backup whose request would be refused when it is done."""
        if self._audit.health.state != "ok":
            raise AuditUnavailableError(
                "No backup is made: the audit log can't record it. See its state in "
                "the status of the HSM."
            )

    def _copy(self, folder: Path, name: str) -> BackUp:
        with ExitStack() as stack:
            heads: list[int] = []

            def rest() -> None:
                stack.enter_context(self._resting)
                # A wait for this record is a wait for all before it.
                draft = AuditDraft.system("system.backup", name)
                self._audit.append([draft], durable=True).wait()
                heads.append(self._audit.head().seq)

            # Each is called when the one after it has little left to copy.
            begin: Callable[[], None] = rest
            for file, copy in self._copiers.items():
                begin = partial(copy, folder / file, begin)
            begin()
        if not heads:
            raise StoreUnavailableError(
                "The backup failed: the copy of a store did not verify."
            )
        files = tuple(_described(folder / file) for file in self._copiers)
        sync_directory(folder)
        return BackUp(folder=name, head_seq=heads[0], files=files)


def _described(path: Path) -> BackedUpFile:
    digest, size = hashlib.sha256(), 0
    with storage_errors(), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return BackedUpFile(name=path.name, size=size, sha256=digest.hexdigest())
