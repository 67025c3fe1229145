# SPDX-License-Identifier: MIT
"""
Commits of key changes to disk.

A new key is staged as a whole directory and appears by one rename. A change of a key
writes its blobs first and then replaces the document by one rename. That rename is the
only commit point; what is in memory follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.files import (
    UnsettledWriteError,
    discard_directory,
    publish_directory,
    stage_directory,
)
from hsm_core._internal.stores.filesystem.healing import Unsettled
from hsm_core._internal.stores.filesystem.kept_index import KeptIndex
from hsm_core._internal.stores.filesystem.layout import (
    DOCUMENT_NAME,
    Layout,
    blob_name,
)
from hsm_core._internal.stores.filesystem.opening import path_exists
from hsm_core.errors import (
    ConflictError,
    HSMError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.model import KeyId
from hsm_core.protocols import KeyChange


class Commits:
    """
    Commits of one store. Callers hold its write lock.

    Args:
        layout: Of the store.

        kept: Its index, which follows what is committed.

        unsettled: Register of writes that may not be durable.
    """

    def __init__(self, layout: Layout, kept: KeptIndex, unsettled: Unsettled) -> None:
        self._layout = layout
        self._kept = kept
        self._unsettled = unsettled

    def make(self, change: KeyChange) -> None:
        """Make a change that the index allows; see `KeyStore.commit`."""
        self._kept.begin(change.entry.key_id)
        if change.expected_generation:
            self._replace(change)
        else:
            self._create(change)

    def discard(self, key_id: KeyId, versions: Sequence[int]) -> None:
        """
        Remove blobs, durably, where there are any.

        Raises:
            StoreUnavailableError: They are still there, or noted as unsettled.
        """
        if not self._layout.has_folder(key_id):
            return
        try:
            self._unsettled.remove([self._layout.blob(key_id, n) for n in versions])
        except UnsettledWriteError as error:
            raise StoreUnavailableError from error

    def write(self, path: Path, data: bytes) -> None:
        """
        Create or replace a file of the store.

        Raises:
            StorageFullError: There is no room; it is as it was.
            StoreUnavailableError: It is as it was, or is noted as unsettled.
        """
        try:
            with self._unsettled.unless_kept(path):
                self._layout.write(path, data)
        except UnsettledWriteError as error:
            raise StoreUnavailableError from error

    def _create(self, change: KeyChange) -> None:
        key_id = change.entry.key_id
        contents = {blob_name(n): blob for n, blob in change.blobs.items()}
        failpoint("store.before_blobs")
        staged = stage_directory(
            self._layout.keys, {**contents, DOCUMENT_NAME: change.document}
        )
        try:
            failpoint("store.after_blobs")
            failpoint("store.before_document")
        except BaseException:
            discard_directory(staged)
            raise
        folder = self._layout.folder(key_id)
        with self._committing(change), self._unsettled.unless_kept(folder):
            publish_directory(staged, folder)
        self._after_commit(change)

    def _replace(self, change: KeyChange) -> None:
        key_id = change.entry.key_id
        if not self._layout.has_folder(key_id):
            raise StoreUnavailableError
        failpoint("store.before_blobs")
        for version, blob in change.blobs.items():
            self._write_blob(key_id, version, blob)
        failpoint("store.after_blobs")
        failpoint("store.before_document")
        path = self._layout.document(key_id)
        with self._committing(change), self._unsettled.unless_kept(path):
            self._layout.write(path, change.document)
        self._after_commit(change)

    def _write_blob(self, key_id: KeyId, version: int, blob: bytes) -> None:
        # A blob that no document names was left by a commit that did not come about.
        path = self._layout.blob(key_id, version)
        if path_exists(path) and self._layout.names_blob(key_id, version):
            raise ConflictError(
                f"The sealed blob of version {version} is immutable and can't be "
                "replaced."
            )
        self.write(path, blob)

    @contextmanager
    def _committing(self, change: KeyChange) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            unsettled = isinstance(error, UnsettledWriteError)
            if isinstance(error, HSMError) and not unsettled:
                raise
            self._unsettled.changed(change.entry.key_id)
            if not isinstance(error, Exception):
                raise
            raise OutcomeUnknownError(
                "The outcome of the change is unknown; reopen the store.",
                operation_id=change.operation_id,
            ) from error

    def _after_commit(self, change: KeyChange) -> None:
        key_id = change.entry.key_id
        paths = [self._layout.blob(key_id, version) for version in change.removed_blobs]
        with self._committing(change):
            self._kept.put(change.entry)
            failpoint("store.after_document")
            self._remove_blobs(paths)
            failpoint("store.after_remove")

    def _remove_blobs(self, paths: Sequence[Path]) -> None:
        # The change is made; what is not durable is settled when the store is reopened.
        try:
            self._unsettled.remove(paths)
        except UnsettledWriteError:
            raise
        except StoreUnavailableError:
            # A blob is still there: nothing else of the store is in doubt.
            return
        except BaseException:
            for path in paths:
                self._unsettled.removed(path)
            raise
