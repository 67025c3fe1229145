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
    <directory>/index                    what is known of all keys; see `index_files`
    <directory>/index.journal            what has changed since then
    <directory>/index.journal.old        the same, while a new index is written

Everything is mode 0700 or 0600. Names of any other form are left alone, whatever they
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES, KeyDocument, peek
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
)
from hsm_core._internal.stores.naming import is_key_id
from hsm_core.errors import (
    IntegrityError,
    StoreUnavailableError,
    UnsafeFileModeError,
)
from hsm_core.model import KeyId

DOCUMENT_NAME: Final = "key.json"


def blob_name(version: int) -> str:
    """Return the name of the sealed blob of a version."""
    return f"v{version:08d}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one store."""

    directory: Path

    @property
    def lock(self) -> Path:
        """The file that the lock is taken on."""
        return self.directory / "lock"

    @property
    def meta(self) -> Path:
        """Directory of small values."""
        return self.directory / "meta"

    @property
    def aborted(self) -> Path:
        """Directory of abort marks."""
        return self.directory / "aborted"

    @property
    def keys(self) -> Path:
        """Directory of the keys; new keys are made here under a temporary name."""
        return self.directory / "keys"

    @property
    def uses(self) -> Path:
        """Directory of use counters."""
        return self.directory / "uses"

    @property
    def staging(self) -> Path:
        """Directory of temporary files, so that a start has one place to tidy."""
        return self.directory / "staging"

    @property
    def index(self) -> Path:
        """Snapshot of the index."""
        return self.directory / "index"

    @property
    def journal(self) -> Path:
        """What has changed since the snapshot."""
        return self.directory / "index.journal"

    @property
    def older_journal(self) -> Path:
        """The journal before, while its snapshot is not written yet."""
        return self.directory / "index.journal.old"

    def folder(self, key_id: KeyId) -> Path:
        """Directory of a key."""
        return self.keys / key_id

    def document(self, key_id: KeyId) -> Path:
        """Document of a key."""
        return self.keys / key_id / DOCUMENT_NAME

    def blob(self, key_id: KeyId, version: int) -> Path:
        """Sealed blob of a version."""
        return self.keys / key_id / blob_name(version)

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
        for path in (self.meta, self.aborted, self.uses):
            check_private_files(path)
        # What is no regular file in the place of an index is not read.
        names = set(list_directory(self.directory)[1])
        for path in (self.index, self.journal, self.older_journal):
            if path.name in names:
                check_private(path)
        return self.remove_temporaries()

    @property
    def _directories(self) -> tuple[Path, ...]:
        return self.meta, self.aborted, self.keys, self.uses, self.staging

    def remove_temporaries(self) -> set[str]:
        """
        Remove what interrupted writes left.

        Returns:
            The names of all directories below that of the keys.

        Raises:
            StoreUnavailableError: A leftover can't be removed.
        """
        left = {path: remove_temporaries(path) for path in self._directories}
        return set(left[self.keys])

    def read_keys(self) -> Iterator[tuple[KeyId, bytes]]:
        """
        Return id and document of every key; an unreadable one has an empty document.

        Raises:
            UnsafeFileModeError: Other users may reach a key's directory or its files.
            StoreUnavailableError: Something can't be read now.
        """
        for name in sorted(list_directory(self.keys)[0]):
            if is_key_id(name):
                self.check_key(KeyId(name))
                yield KeyId(name), self.read(self.document(KeyId(name))) or b""

    def read(self, path: Path, *, guarded: bool = False) -> bytes | None:
        """
        Return a document or blob, or None if there is nothing of this name.

        What is no regular file, is longer than any document, or lies in what is no
        directory, has no bytes for us.

        Args:
            path: Of a document or blob.

            guarded: Refuse what others may reach.

        Raises:
            StoreUnavailableError: It can't be read now.
        """
        try:
            found = find_directory(path.parent)
        except UnsafeFileModeError as error:
            if guarded:
                raise StoreUnavailableError from error
            found = True
        try:
            if not found:
                return _nothing(found)
            return read_file(path, MAX_DOCUMENT_BYTES, private=guarded)
        except IntegrityError:
            return b""

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

    def names_blob(self, key_id: KeyId, version: int) -> bool:
        """Return whether the document names the blob of a version, or can't be read."""
        stored = self.read(self.document(key_id)) or b""
        document = peek(key_id, stored)
        return document is None or _names(document, version)


def _names(document: KeyDocument, number: int) -> bool:
    version = document.version(number)
    return version is not None and bool(version.blob_sha256)


def _nothing(found: bool | None) -> bytes | None:
    return None if found is None else b""
