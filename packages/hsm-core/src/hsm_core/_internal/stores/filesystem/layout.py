# SPDX-License-Identifier: MIT
"""
Directory layout of a key store, and its preparation at opening.

::

    <directory>/lock                     held while the store is open
    <directory>/meta/<name>              small values, such as the sealed key ring
    <directory>/aborted/<operation id>   operations that may not commit any more
    <directory>/keys/<key id>/key.json   the document of a key
    <directory>/keys/<key id>/vNNNNNNNN  the sealed blobs of its versions
    <directory>/uses/<material id>       how often a key's material was used
    <directory>/staging/                 files on their way to their place
    <directory>/index                    what is known of all keys; see `SavedKeyIndex`
    <directory>/index-wal                its write-ahead log

Everything is mode 0700 or 0600. Names of any other form are left alone, whatever they
are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES, is_key_id
from hsm_core._internal.stores.filesystem.files import (
    atomic_write,
    check_private_files,
    list_directory,
    read_file,
    remove_temporaries,
)
from hsm_core._internal.stores.filesystem.opening import (
    check_private,
    find_directory,
    make_private_directory,
    path_exists,
)
from hsm_core._internal.stores.records import (
    ABORTED,
    APPROVALS,
    DOCUMENT,
    KEYS,
    META,
    USES,
    key_of,
)
from hsm_core.errors import IntegrityError, StoreUnavailableError, UnsafeFileModeError
from hsm_core.model import KeyId

DOCUMENT_NAME: Final = "key.json"
_SUFFIX: Final = ".json"


@dataclass(frozen=True)
class Layout:
    """Paths of a key store."""

    directory: Path

    def path(self, name: str) -> Path:
        """Return where a record lies."""
        if name.startswith(KEYS):
            return self.folder(key_of(name)) / file_name(name)
        return self.directory / name

    def ids(self, folder: str) -> list[str]:
        """Return the names of the records below a folder."""
        directories, regular = list_directory(self.directory / folder)
        return directories if folder == KEYS else regular

    @cached_property
    def keys(self) -> Path:
        """Directory of the keys; new keys are made here under a temporary name."""
        return self.directory / "keys"

    @property
    def staging(self) -> Path:
        """Directory of temporary files, so that a start has one place to tidy."""
        return self.directory / "staging"

    @property
    def index(self) -> Path:
        """Saved index of the keys, a SQLite database."""
        return self.directory / "index"

    @property
    def index_files(self) -> list[Path]:
        """Files of a saved index, in either form that there has been."""
        sides = ("", "-wal", "-shm", "-journal", ".journal", ".journal.old")
        return [self.directory / f"index{side}" for side in sides]

    def folder(self, key_id: KeyId) -> Path:
        """Directory of a key."""
        return self.keys / key_id

    def prepare(self) -> set[str]:
        """
        Make the directories, or check those there are, and tidy what a crash left.

        Returns:
            The names of all directories below that of the keys.

        Raises:
            UnsafeFileModeError: Other users may reach one of them, or a file in it.
            StoreUnavailableError: Something can't be made, examined or removed.
        """
        for path in self._directories:
            make_private_directory(path)
        for folder in (META, ABORTED, USES):
            check_private_files(self.directory / folder)
        # What is no regular file in the place of an index is not read.
        names = set(list_directory(self.directory)[1])
        for path in self.index_files:
            if path.name in names:
                check_private(path)
        return self.remove_temporaries()

    @property
    def _directories(self) -> tuple[Path, ...]:
        records = (self.directory / folder for folder in (META, ABORTED, KEYS, USES))
        return *records, self.staging

    def remove_temporaries(self) -> set[str]:
        """
        Remove what interrupted writes left.

        Returns:
            The names of all directories below that of the keys.

        Raises:
            StoreUnavailableError: A leftover can't be removed.
        """
        left = {path: remove_temporaries(path) for path in self._directories}
        return set(left.get(self.keys, ()))

    def read(
        self, name: str, most: int = MAX_DOCUMENT_BYTES, *, private: bool = True
    ) -> bytes | None:
        """
        Return a record, or None if there is nothing of this name.

        Args:
            name: Of the record.

            most: Longest record, in bytes.

            private: Refuse what others may reach.

        Raises:
            IntegrityError: It is no regular file, is longer, or lies in what is no
                directory.
            StoreUnavailableError: It can't be read now, or is refused.
        """
        path = self.path(name)
        if name.startswith(KEYS):
            try:
                found = find_directory(path.parent)
            except UnsafeFileModeError as error:
                if private:
                    raise StoreUnavailableError from error
                found = True
            if found is None:
                return None
            if not found:
                raise IntegrityError(
                    "The path of a key's directory is not a directory."
                )
        return read_file(path, most, private=private)

    def read_document(self, name: str) -> bytes | None:
        """
        Return a key's document without a check of its mode, or None without a key.

        It is empty where something else lies there, or nothing but the directory.
        """
        try:
            stored = self.read(name, private=False)
        except IntegrityError:
            return b""
        if stored is None and path_exists(self.folder(key_of(name))):
            return b""
        return stored

    def check_key(self, key_id: KeyId) -> None:
        """
        Check that the directory of a key and the files in it are ours alone.

        Raises:
            UnsafeFileModeError: `check_private` refuses one of them.
            StoreUnavailableError: They can't be examined.
        """
        if find_directory(self.folder(key_id)):
            check_private_files(self.folder(key_id))

    def has_folder(self, key_id: KeyId) -> bool:
        """
        Return whether there is a directory of a key, and no link in its place.

        Raises:
            StoreUnavailableError: Other users may reach it, or it can't be examined.
        """
        try:
            return find_directory(self.folder(key_id)) is True
        except UnsafeFileModeError as error:
            raise StoreUnavailableError from error

    def write(self, path: Path, data: bytes) -> None:
        """Create or replace a file of the store; see `atomic_write`."""
        atomic_write(path, data, staging=self.staging)


def file_name(name: str) -> str:
    """Return the file name of a document or blob."""
    last = name.rpartition("/")[2]
    return DOCUMENT_NAME if last == DOCUMENT else last


class FlatLayout(Layout):
    """Paths of an approval store: one file per approval."""

    @property
    def staging(self) -> Path:
        """Directory of temporary files: that of the approvals."""
        return self.directory

    @property
    def _directories(self) -> tuple[Path, ...]:
        return (self.directory,)

    def path(self, name: str) -> Path:
        """Return where a record lies."""
        return self.directory / (name.removeprefix(APPROVALS) + _SUFFIX)

    def ids(self, folder: str) -> list[str]:
        """Return the ids of what seems to be an approval."""
        names = list_directory(self.directory)[1]
        return [n.removesuffix(_SUFFIX) for n in names if n.endswith(_SUFFIX)]

    def prepare(self) -> set[str]:
        """Tidy what a crash left, and check that all approvals are private."""
        self.remove_temporaries()
        for approval_id in filter(is_key_id, self.ids(APPROVALS)):
            check_private(self.path(approval_id))
        return set()
