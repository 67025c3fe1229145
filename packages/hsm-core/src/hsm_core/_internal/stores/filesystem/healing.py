# SPDX-License-Identifier: MIT
"""
Healing of a key store after failed writes with unknown durability.

A failed sync after a rename may have lost the change, and a later successful sync
proves nothing about it. So the content of each such path is read and rewritten.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES
from hsm_core._internal.stores.filesystem.files import (
    UnsettledWriteError,
    atomic_write,
    overwrite_file,
    path_exists,
    read_file,
    remove_file,
    stage_directory,
    sync_directory,
)
from hsm_core._internal.stores.filesystem.layout import Layout
from hsm_core._internal.stores.filesystem.renewal import (
    read_directory,
    renew_directory,
    swap_directory,
)
from hsm_core.errors import HSMError, IntegrityError, StoreUnavailableError
from hsm_core.model import KeyId

_BLOB_BYTES: Final = MAX_DOCUMENT_BYTES
"""No sealed blob is longer; what is longer is not ours to overwrite."""


class Unsettled:
    """
    Paths whose last change may not be durable. Thread-safe.

    It is true from the first note until `clear`: as long, the store refuses everything.

    Args:
        layout: Of the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._paths: dict[Path, bool] = {}
        self._keys: set[KeyId] = set()
        self._is_pending = False

    def __bool__(self) -> bool:
        return self._is_pending

    def written(self, path: Path) -> None:
        """Note a file, or the directory of a new key, that may have been replaced."""
        with self._lock:
            self._paths.setdefault(path, False)
            self._is_pending = True

    @contextmanager
    def unless_kept(self, path: Path) -> Iterator[None]:
        """Note *path*, unless a block that writes it ends well or changed nothing."""
        try:
            yield
        except UnsettledWriteError:
            self.written(path)
            raise
        except HSMError:
            raise
        except BaseException:
            self.written(path)
            raise

    def remove(self, paths: Sequence[Path]) -> None:
        """
        Remove sealed blobs of one key, durably, overwritten as far as that goes.

        Those that are gone are noted if that is not durable. One that can't be removed
        keeps none of the others.

        Raises:
            UnsettledWriteError: Those that are gone have been noted.
            StoreUnavailableError: One is still there; nothing has been noted.
        """
        gone: list[Path] = []
        kept: StoreUnavailableError | None = None
        try:
            for path in paths:
                try:
                    if _remove(path, gone):
                        gone.append(path)
                except UnsettledWriteError:
                    raise
                except StoreUnavailableError as error:
                    kept = error
            if gone:
                _sync_parent(gone[0])
        except BaseException:
            for path in gone:
                self.removed(path)
            raise
        if kept is not None:
            raise kept

    def removed(self, path: Path) -> None:
        """Note a file that is to be gone."""
        with self._lock:
            self._paths[path] = True
            self._is_pending = True

    def changed(self, key_id: KeyId) -> None:
        """Note a key whose document may be another than the index says."""
        with self._lock:
            self._keys.add(key_id)
            self._is_pending = True

    @property
    def key_ids(self) -> list[KeyId]:
        """Keys that were noted as changed."""
        with self._lock:
            return sorted(self._keys)

    def settle(self) -> None:
        """
        Make durable what is really there; nobody may write meanwhile.

        May be called again after it failed, and does the rest then.

        Raises:
            StoreUnavailableError: Something can't be read or written now.
        """
        self._layout.remove_temporaries()
        with self._lock:
            paths = list(self._paths.items())
        for path, is_removed in paths:
            if is_removed:
                _remove_if_possible(path)
                renew_directory(path.parent)
            else:
                self._renew(path)
            with self._lock:
                del self._paths[path]

    def _renew(self, path: Path) -> None:
        try:
            if path.parent == self._layout.keys:
                self._renew_key(path)
                return
            content = read_file(path, MAX_DOCUMENT_BYTES, private=False)
        except IntegrityError:
            # Somebody has put something else there; it is judged by who reads it.
            content = None
        if content is None:
            renew_directory(path.parent if path_exists(path.parent) else _above(path))
        else:
            atomic_write(path, content, staging=self._layout.staging)

    def _renew_key(self, folder: Path) -> None:
        contents = None
        if path_exists(folder):
            contents = read_directory(folder, MAX_DOCUMENT_BYTES)
        if contents is None:
            renew_directory(folder.parent)
        else:
            swap_directory(stage_directory(folder.parent, contents), folder)

    def clear(self) -> None:
        """Forget everything: it is settled, and what was changed was read again."""
        with self._lock:
            self._keys.clear()
            self._is_pending = bool(self._paths)


def _remove(path: Path, gone: list[Path]) -> bool:
    overwrite_file(path, _BLOB_BYTES)
    try:
        return remove_file(path)
    except UnsettledWriteError:
        gone.append(path)
        raise


def _remove_if_possible(path: Path) -> None:
    overwrite_file(path, _BLOB_BYTES)
    try:
        remove_file(path)
    except UnsettledWriteError:
        raise
    except StoreUnavailableError:
        # It is still there. Whoever compares its key tries again, and says so.
        return


def _sync_parent(path: Path) -> None:
    try:
        sync_directory(path.parent)
    except StoreUnavailableError as error:
        raise UnsettledWriteError from error


def _above(path: Path) -> Path:
    return path.parent.parent
