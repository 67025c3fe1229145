# SPDX-License-Identifier: MIT
"""
Records in a directory, safe against kills and power cuts.

A new key is staged as a whole directory, often ahead of its commit, and appears by one
rename. A change of a key
writes its blobs first and then replaces the document by one rename. That rename is the
only commit point; what is in memory follows it.

After a failed sync behind a rename the content of the disk is unknown, and a later
successful sync proves nothing about it. The store then refuses everything until it has
read and rewritten the affected files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.lib.process import OpeningProcess
from hsm_core._internal.stores.filesystem.files import (
    create_file,
    discard_directory,
    publish_directory,
    stage_directory,
)
from hsm_core._internal.stores.filesystem.key_healing import Unsettled
from hsm_core._internal.stores.filesystem.layout import Layout, file_name
from hsm_core._internal.stores.filesystem.opening import (
    lock_directory,
    make_private_directory,
    path_exists,
)
from hsm_core._internal.stores.records import (
    APPROVALS,
    KEYS,
    USES,
    Commit,
    DamagedRecordError,
    Records,
    Reload,
    UnsettledError,
    key_of,
    names_blob,
)
from hsm_core.errors import ConflictError, IntegrityError, StoreUnavailableError
from hsm_core.protocols import ApprovalEntry


class FileRecords(Records):
    """
    Records as files below one directory.

    Args:
        layout: Of the directory, which is made with mode 0700 if absent.

        what: What they are, for errors.

    Raises:
        StoreLockedError: Another process has it open.
        UnsafeFileModeError: Other users may reach it.
        StoreUnavailableError: It can't be made or read.

    Attributes:
        folders: Names of the keys' directories that were found at opening.
        before_close: Called before the lock is released, with whether all is settled.
    """

    def __init__(self, layout: Layout, what: str) -> None:
        self._layout = layout
        self._what = what
        self._unsettled = Unsettled(layout)
        self._reload = Reload()
        self._lock = threading.RLock()
        # One failed sync concerns all counters on their way, but no key.
        self._counting = threading.RLock()
        self._staging = threading.Lock()
        self._staged: dict[str, tuple[Path, dict[str, bytes]]] = {}
        self._process = OpeningProcess()
        self._is_closed = False
        self.before_close: Callable[[bool], None] = lambda is_settled: None
        make_private_directory(layout.directory)
        self._held = lock_directory(layout.directory)
        try:
            self.folders = layout.prepare()
        except BaseException:
            self._held.release()
            raise

    def __repr__(self) -> str:
        return f"<FileRecords {str(self._layout.directory)!r}>"

    @property
    def available(self) -> bool:
        """See `Records.available`; asked for each use of a key."""
        is_down = self._is_closed or self._unsettled.is_pending or self._held.is_lost
        # The thread that reads all again may ask the reload itself.
        is_down = is_down or (self._reload.is_due and bool(self._reload))
        return not is_down and self._process.mark[0] == 1

    def check_usable(self) -> None:
        """See `Records.check_usable`."""
        self._check_open()
        if self._unsettled or self._reload or self._held.is_lost:
            raise StoreUnavailableError(f"A write failed; reopen the {self._what}.")

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailableError(f"The {self._what} is closed.")
        if not self._process.is_this():
            raise StoreUnavailableError(
                f"The {self._what} was opened by the parent process; open it again in "
                "this one."
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Records.writing`."""
        with self._changing(KEYS):
            yield

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        with self._counting if name.startswith(USES) else self._lock:
            self.check_usable()
            self._held.check()
            yield

    def reopen(
        self,
        again: Callable[[str, bytes | None], None],
        every: Callable[[], None] = lambda: None,
        /,
    ) -> None:
        """
        See `Records.reopen`.

        Where the lock was lost, another process may have changed everything.
        """
        with self._lock, self._counting, self._staging:
            self._check_open()
            if not (self._unsettled or self._reload or self._held.is_lost):
                return
            if self._held.is_lost:
                self._reload.request()
            self._held.renew()
            # Settling removes whatever has a temporary name.
            self._staged.clear()
            self._unsettled.settle()
            for name in self._unsettled.names:
                again(name, self._read_again(name))
            self._unsettled.clear()
            self._reload.run(every)

    # Reading

    def read(self, name: str, /, most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """See `Records.read`."""
        self.check_usable()
        return self._read(name, most)

    def _read(self, name: str, most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        try:
            return self._layout.read(name, most)
        except IntegrityError as error:
            raise DamagedRecordError(str(error)) from error

    def read_again(self, name: str, /) -> bytes | None:
        """Return a document without a check of its mode; see `Records.read_again`."""
        self.check_usable()
        return self._read_again(name)

    def _read_again(self, name: str) -> bytes | None:
        if name.startswith(KEYS):
            return self._layout.read_document(name)
        try:
            return self._read(name)
        except DamagedRecordError:
            return b""

    def ids(self, folder: str, /) -> list[str]:
        """See `Records.ids`."""
        self.check_usable()
        return self._layout.ids(folder)

    # Writing

    def put(
        self,
        name: str,
        data: bytes,
        /,
        *,
        is_first: bool = False,
        entry: ApprovalEntry | None = None,
        made: Callable[[], None] = lambda: None,
    ) -> None:
        """See `Records.put`."""
        path = self._layout.path(name)
        with self._changing(name), self._unsettled.unless_kept(name, path):
            if is_first:
                create_file(path, data)
            else:
                self._layout.write(path, data)
            made()

    def delete(
        self, names: Sequence[str], /, gone: Callable[[str], None] = lambda name: None
    ) -> None:
        """See `Records.delete`."""
        if not names:
            return
        with self._changing(names[0]):
            key = key_of(names[0]) if names[0].startswith(KEYS) else None
            if key is not None and not self._layout.has_folder(key):
                return
            self._remove(names, gone)

    def _remove(self, names: Sequence[str], gone: Callable[[str], None]) -> None:
        paths = {self._layout.path(name): name for name in names}
        removed: list[Path] = []
        overwrite = not names[0].startswith(APPROVALS)
        try:
            self._unsettled.remove(list(paths), removed, overwrite=overwrite)
        except BaseException:
            if self._unsettled:
                for path in removed:
                    self._unsettled.changed(paths[path])
            raise
        finally:
            for path in removed:
                gone(paths[path])

    def commit(self, commit: Commit, /) -> None:
        """See `Records.commit`."""
        with self._changing(commit.name):
            self.check_tenure(commit)
            commit.check()
            if not commit.expected_generation:
                self._create(commit)
            else:
                self._replace(commit)

    def stage(self, name: str, data: bytes, before: Mapping[str, bytes], /) -> None:
        """See `Records.stage`."""
        contents = {file_name(blob): content for blob, content in before.items()}
        contents[file_name(name)] = data
        with self._staging:
            self.check_usable()
            self._held.check()
            staged = stage_directory(self._layout.keys, contents)
            self._staged[name] = (staged, contents)
        failpoint("store.staged")

    def discard_staged(self, name: str, /) -> None:
        """See `Records.discard_staged`."""
        staged = self._staged.pop(name, None)
        if staged is not None:
            discard_directory(*staged)

    def _create(self, commit: Commit) -> None:
        folder = self._layout.folder(key_of(commit.name))
        contents = {file_name(name): blob for name, blob in commit.before.items()}
        contents[file_name(commit.name)] = commit.data
        failpoint("store.before_blobs")
        staged, ahead = self._staged.pop(commit.name, (folder, {}))
        if ahead != contents:
            staged = stage_directory(self._layout.keys, contents)
        try:
            failpoint("store.after_blobs")
            failpoint("store.before_document")
        except BaseException:
            discard_directory(staged, contents)
            raise
        with self._unsettled.unless_kept(commit.name, folder):
            publish_directory(staged, folder)
        self._after_commit(commit)

    def _replace(self, commit: Commit) -> None:
        if not self._layout.has_folder(key_of(commit.name)):
            raise StoreUnavailableError
        failpoint("store.before_blobs")
        for name, blob in commit.before.items():
            self._write_blob(commit.name, name, blob)
        failpoint("store.after_blobs")
        failpoint("store.before_document")
        path = self._layout.path(commit.name)
        with self._unsettled.unless_kept(commit.name, path):
            self._layout.write(path, commit.data)
        self._after_commit(commit)

    def _write_blob(self, document: str, name: str, blob: bytes) -> None:
        # A blob that no document names was left by a commit that did not come about.
        path = self._layout.path(name)
        if path_exists(path) and names_blob(name, self._read_again(document) or b""):
            raise ConflictError("A sealed blob is immutable and can't be replaced.")
        try:
            with self._unsettled.unless_kept(name, path):
                self._layout.write(path, blob)
        except UnsettledError as error:
            # The document is as it was.
            raise StoreUnavailableError from error

    def _after_commit(self, commit: Commit) -> None:
        with self._settling(commit):
            commit.made()
            failpoint("store.after_document")
            self._remove_blobs(commit)
            failpoint("store.after_remove")

    @contextmanager
    def _settling(self, commit: Commit) -> Iterator[None]:
        # The change is made; what is not durable is settled when the store is reopened.
        try:
            yield
        except BaseException as error:
            self._unsettled.changed(commit.name)
            if isinstance(error, UnsettledError) or not isinstance(error, Exception):
                raise
            raise UnsettledError from error

    def _remove_blobs(self, commit: Commit) -> None:
        paths = [self._layout.path(name) for name in commit.after]
        try:
            self._unsettled.remove(paths, [])
        except UnsettledError:
            raise
        except StoreUnavailableError:
            # A blob is still there: nothing else of the store is in doubt.
            return
        except BaseException:
            for path in paths:
                self._unsettled.removed(path)
            raise

    def close(self) -> None:
        """Release the lock, after the commit that is under way."""
        with self._lock:
            if not self._is_closed and self._process.is_this():
                self.before_close(not self._unsettled)
            self._is_closed = True
            self._held.release()
