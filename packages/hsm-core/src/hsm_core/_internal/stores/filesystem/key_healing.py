# SPDX-License-Identifier: MIT
"""
Healing of a key store after failed writes with unknown durability.

After a sync has failed, a later one that succeeds says nothing of what was written
before it: the system may have given that up. So the content of each such path is read
and rewritten, and the sync then covers this new write.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES
from hsm_core._internal.stores.filesystem.files import (
    atomic_write,
    discard_directory,
    overwrite_file,
    read_file,
    remove_file,
    stage_directory,
    temporary_in,
    write_new,
)
from hsm_core._internal.stores.filesystem.layout import Layout
from hsm_core._internal.stores.filesystem.opening import (
    path_exists,
    storage_errors,
    sync_directory,
)
from hsm_core._internal.stores.records import UnsettledError
from hsm_core.errors import HSMError, IntegrityError, StoreUnavailableError

_MOST_FILES: Final = 4096


def renew_directory(path: Path) -> None:
    """
    Make the names in a directory durable, by changing it and syncing the change.

    Raises:
        StoreUnavailableError: It can't be done now; to be tried again.
    """
    temporary = temporary_in(path)
    with storage_errors():
        write_new(temporary, b"")
        os.unlink(temporary)
    sync_directory(path)


def read_directory(path: Path, limit_bytes: int) -> dict[str, bytes] | None:
    """
    Return the files of a directory; None if it holds anything that no store puts there.

    Raises:
        StoreUnavailableError: It can't be read now.
    """
    contents: dict[str, bytes] = {}
    with storage_errors():
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return None
    with storage_errors(), os.scandir(path) as entries:
        for entry in entries:
            try:
                content = read_file(path / entry.name, limit_bytes, private=False)
            except IntegrityError:
                return None
            if content is None or len(contents) == _MOST_FILES:
                return None
            contents[entry.name] = content
    return contents


def swap_directory(staged: Path, path: Path) -> None:
    """
    Put a staged directory in the place of another, which is then removed.

    Killed in between, neither of them has the name, and a start removes both.

    Raises:
        UnsettledError: The directory above could not be synced.
        StoreUnavailableError: It could not be put there.
    """
    old = temporary_in(path.parent)
    try:
        with storage_errors():
            os.rename(path, old)
            os.rename(staged, path)
    except StoreUnavailableError:
        discard_directory(staged)
        raise
    try:
        sync_directory(path.parent)
    except StoreUnavailableError as error:
        raise UnsettledError from error
    discard_directory(old)


_BLOB_BYTES: Final = MAX_DOCUMENT_BYTES
"""No sealed blob is longer; what is longer is not ours to overwrite."""


class Unsettled:
    """
    Paths whose last change may not be durable. Thread-safe.

    It is true from the first note until `clear`: as long, the store refuses everything.

    Args:
        layout: Of the store.

    Attributes:
        is_pending: What it is as a truth value.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._paths: dict[Path, bool] = {}
        self._names: set[str] = set()
        self.is_pending = False

    def __bool__(self) -> bool:
        return self.is_pending

    def written(self, path: Path) -> None:
        """Note a file, or the directory of a new key, that may have been replaced."""
        with self._lock:
            self._paths.setdefault(path, False)
            self.is_pending = True

    @contextmanager
    def unless_kept(self, name: str, path: Path) -> Iterator[None]:
        """
        Note a record unless a block that decides on it ends well or changed nothing.

        Raises:
            UnsettledError: The record may have been changed.
        """
        try:
            yield
        except BaseException as error:
            unsettled = isinstance(error, UnsettledError)
            if isinstance(error, HSMError) and not unsettled:
                raise
            self.written(path)
            self.changed(name)
            if unsettled or not isinstance(error, Exception):
                raise
            raise UnsettledError from error

    def remove(
        self, paths: Sequence[Path], gone: list[Path], *, overwrite: bool = True
    ) -> None:
        """
        Remove files of one directory, durably.

        Those that are gone are noted if that is not durable. One that can't be removed
        keeps none of the others.

        Args:
            paths: Of the files.

            gone: Those that were removed are added.

            overwrite: Overwrite each, as far as that goes.

        Raises:
            UnsettledError: Those that are gone have been noted.
            StoreUnavailableError: One is still there; nothing has been noted.
        """
        kept: StoreUnavailableError | None = None
        try:
            for path in paths:
                try:
                    if overwrite:
                        overwrite_file(path, _BLOB_BYTES)
                    if remove_file(path):
                        gone.append(path)
                except UnsettledError:
                    gone.append(path)
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
            self.is_pending = True

    def changed(self, name: str) -> None:
        """Note a record that may be another than the index says."""
        with self._lock:
            self._names.add(name)
            self.is_pending = True

    @property
    def names(self) -> list[str]:
        """Records that were noted as changed."""
        with self._lock:
            return sorted(self._names)

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
            self._names.clear()
            self.is_pending = bool(self._paths)


def _remove_if_possible(path: Path) -> None:
    try:
        overwrite_file(path, _BLOB_BYTES)
        remove_file(path)
    except UnsettledError:
        raise
    except StoreUnavailableError:
        # The next comparison of its key tries again, and reports what is still there.
        return


def _sync_parent(path: Path) -> None:
    try:
        sync_directory(path.parent)
    except StoreUnavailableError as error:
        raise UnsettledError from error


def _above(path: Path) -> Path:
    return path.parent.parent
