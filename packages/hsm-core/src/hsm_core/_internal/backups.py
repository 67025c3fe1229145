# SPDX-License-Identifier: MIT
"""
Backups of databases in use.

Keys and trail are copied while no key is changed: a change is in both copies, or it is
one that recovery settles at the next start. All of it is sealed or authenticated.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeAlias

from hsm_core._internal.clock import instant
from hsm_core._internal.stores.filesystem.opening import (
    make_private_directory,
    storage_errors,
    sync_directory,
)
from hsm_core.errors import UnsupportedOperationError
from hsm_core.model import MessageDetail, Phase
from hsm_core.operations import BackedUpFile, BackUp
from hsm_core.protocols import AuditDraft, AuditLog, Clock

__all__ = ["Backups", "Copier"]

Copier: TypeAlias = Callable[[Path], None]
"""Copies a database into a new file."""

_CHUNK: Final = 1024 * 1024


class Backups:
    """
    Copies all databases of an HSM.

    Args:
        directory: Where a folder is made for each backup; None refuses them.

        copiers: The databases, by the name of their copy; the trail comes last.

        audit: The trail.

        clock: For the name of the folder.

        resting: Held while it is copied; no key is changed meanwhile.
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
            AuditUnavailableError: The trail can't be written.
        """
        if self._directory is None:
            raise UnsupportedOperationError("There is no directory for backups.")
        if not self._copiers:
            raise UnsupportedOperationError(
                "There is nothing to copy: no store is a SQLite database."
            )
        now = instant(self._clock.now()).strftime("%Y%m%dT%H%M%S.%fZ")
        make_private_directory(self._directory)
        folder = self._directory / now
        make_private_directory(folder)
        try:
            return self._copy(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _copy(self, folder: Path) -> BackUp:
        with self._resting:
            # Whoever waits for this record waits for all before it.
            self._audit.append([_begin(folder.name)], durable=True).wait()
            head = self._audit.head()
            for name, copy in self._copiers.items():
                copy(folder / name)
        files = tuple(_described(folder / name) for name in self._copiers)
        sync_directory(folder)
        return BackUp(folder=folder.name, head_seq=head.seq, files=files)


def _begin(name: str) -> AuditDraft:
    return AuditDraft(
        phase=Phase.SINGLE, kind="system.backup", detail=MessageDetail(text=name)
    )


def _described(path: Path) -> BackedUpFile:
    digest, size = hashlib.sha256(), 0
    with storage_errors(), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return BackedUpFile(name=path.name, size=size, sha256=digest.hexdigest())
