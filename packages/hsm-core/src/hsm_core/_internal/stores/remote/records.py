# SPDX-License-Identifier: MIT
"""
Records in a remote vault, and the key store over them.

A document is replaced by one conditional put, which is the only commit point; it
expects the very object that the change was prepared on.

Where a put may have been done or not, the store refuses everything until it is
reopened; that fences the document, so that a put still on its way is refused when it
arrives. A list may lag behind: what it lacks is never called missing before the object
itself was asked for.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.lib.process import OpeningProcess
from hsm_core._internal.stores.index import KeyIndex
from hsm_core._internal.stores.keys import RecordKeyStore
from hsm_core._internal.stores.records import (
    KEYS,
    USES,
    Commit,
    DamagedRecordError,
    Records,
    Reload,
    UnsettledError,
    document_name,
    key_of,
    names_blob,
)
from hsm_core._internal.stores.remote.leases import RemoteLeases, WriterLease
from hsm_core._internal.stores.remote.objects import (
    CheckedVault,
    FoundDocument,
    RemoteDocuments,
)
from hsm_core.errors import (
    ConflictError,
    GenerationConflictError,
    HSMError,
    StoreUnavailableError,
    VaultConflictError,
)
from hsm_core.model import KeyId
from hsm_core.protocols import ABSENT, ApprovalEntry, Clock, Entropy, RemoteKeyVault

_COMMIT_TRIES: Final = 3
_STRIPES: Final = 16


class VaultRecords(Records):
    """
    Records as objects of a vault.

    The tag of a document is that of the object that its index entry was read from, so
    that a change prepared on that entry replaces that object or none.

    Args:
        vault: Closed with the records, and if they can't be opened.

        clock: Tells how long this process may write.

        entropy: Makes each writing of a document one of its own.

        holder: Who opens them; 1 to 128 visible ASCII characters, unique among
            processes.

        patient: Wait for the end of the lease of a process that seems to be dead.

    Raises:
        StoreLockedError: Another process has them open.
        StoreUnavailableError: The vault can't be read or written.
    """

    is_remote = True

    def __init__(
        self,
        vault: RemoteKeyVault,
        *,
        clock: Clock,
        entropy: Entropy,
        holder: str,
        patient: bool,
    ) -> None:
        self._vault = CheckedVault(vault)
        self._documents = RemoteDocuments(self._vault, entropy)
        leases = RemoteLeases(self._vault, clock, entropy)
        self._lease = WriterLease(leases, clock, holder)
        self._tags: dict[str, str] = {}
        self._unsettled: dict[str, Commit] = {}
        self._reload = Reload()
        self._lock = threading.RLock()
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._process = OpeningProcess()
        self._is_closed = False
        try:
            self._lease.begin(patient=patient)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<VaultRecords in {self._vault!r}>"

    @property
    def tenure(self) -> int:
        """See `Records.tenure`."""
        return self._lease.epoch

    def check_usable(self) -> None:
        """See `Records.check_usable`."""
        self._check_open()
        if self._reload or (self._unsettled and not self._reload.is_running):
            raise StoreUnavailableError("A write failed; reopen the key store.")
        if not self._lease.is_held:
            raise StoreUnavailableError(
                "The key store lost its writer lease; reopen it."
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailableError("The key store is closed.")
        if not self._process.is_this():
            raise StoreUnavailableError(
                "The key store was opened by the parent process; open it again in "
                "this one."
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Records.writing`."""
        with self._lock:
            self.check_usable()
            yield

    def reopen(
        self,
        again: Callable[[str, bytes | None], None],
        every: Callable[[], None] = lambda: None,
        /,
    ) -> None:
        """Take the lease again, and find out what is in doubt; see `Records`."""
        with self._lock:
            self._check_open()
            if not self._lease.is_held and self._lease.resume():
                self._reload.request()
            self._reload.run(every)
            for name, commit in list(self._unsettled.items()):
                found = self._fence(name)
                # A known key without a document stays known: it is missing.
                if found.document is not None:
                    again(name, found.document)
                if found.document == commit.data:
                    self._remove_blobs(commit)
                del self._unsettled[name]

    # Reading

    def read(self, name: str, /, most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """See `Records.read`."""
        self.check_usable()
        if name.startswith(KEYS) and name == document_name(key_of(name)):
            return self._documents.read(key_of(name)).document
        found = self._vault.get(name)
        if found is not None and len(found.data) > most:
            raise DamagedRecordError("A stored value is too long.")
        return None if found is None else found.data

    def ids(self, folder: str, /) -> Iterator[str]:
        """See `Records.ids`."""
        self.check_usable()
        for name in self._vault.list_all(folder):
            found, _, rest = name.removeprefix(folder).partition("/")
            if folder != KEYS or rest == "document":
                yield found

    def read_documents(
        self, key_ids: Iterable[KeyId], /, *, again: bool = False
    ) -> Iterator[tuple[KeyId, bytes | None]]:
        """Return documents of keys, read side by side; see `Records`."""
        tags = {}
        for key_id, found in self._documents.read_many(key_ids):
            self.check_usable()
            tags[document_name(key_id)] = found.tag
            yield key_id, found.document
        if again:
            # Not before all were read: until then the index says what was there before.
            self._tags.update(tags)

    def read_again(self, name: str, /) -> bytes | None:
        """
        Return a document; one that an earlier tenure wrote is fenced first.

        So what this returns stays true even if that process still has a change of this
        key on its way.
        """
        found = self._documents.read(key_of(name))
        if found.epoch != self.tenure:
            found = self._fence(name)
        self._tags[name] = found.tag
        return found.document

    def _fence(self, name: str) -> FoundDocument:
        found = self._documents.fence(key_of(name), epoch=self.tenure)
        self._tags[name] = found.tag
        return found

    # Writing

    def commit(self, commit: Commit, /) -> None:
        """See `Records.commit`."""
        with self.writing():
            self.check_tenure(commit)
            commit.check()
            failpoint("store.before_blobs")
            for name, blob in commit.before.items():
                self._put_blob(commit.name, name, blob)
            failpoint("store.after_blobs")
            failpoint("store.before_document")
            self.check_usable()
            with self._committing(commit):
                self._replace(commit)
                commit.made()
                failpoint("store.after_document")
            self._remove_blobs(commit)
            failpoint("store.after_remove")

    @contextmanager
    def _committing(self, commit: Commit) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            unsettled = isinstance(error, UnsettledError)
            if isinstance(error, HSMError) and not unsettled:
                raise
            self._unsettled[commit.name] = commit
            if unsettled or not isinstance(error, Exception):
                raise
            raise UnsettledError from error

    def _put_blob(self, document: str, name: str, blob: bytes) -> None:
        try:
            with suppress(VaultConflictError):
                self._vault.put_surely(name, blob, expected=ABSENT)
                return
            # One that no document names was left by a commit that did not come about.
            if names_blob(name, self._documents.read(key_of(document)).document):
                raise ConflictError("A sealed blob is immutable and can't be replaced.")
            self._vault.replace(name, blob)
        except UnsettledError as error:
            # The document is as it was.
            raise StoreUnavailableError from error

    def _replace(self, commit: Commit) -> None:
        for _ in range(_COMMIT_TRIES):
            tag = self._tags.get(commit.name, ABSENT)
            try:
                self._tags[commit.name] = self._documents.write(
                    key_of(commit.name), commit.data, tag=tag, epoch=commit.tenure
                )
            except VaultConflictError:
                if not self._is_as_expected(commit):
                    break
            else:
                return
        raise GenerationConflictError

    def _is_as_expected(self, commit: Commit) -> bool:
        """Read a document again; whether it is what it was, in another object."""
        found = self._documents.read(key_of(commit.name))
        expected = commit.expected()
        if found.document is None or not expected:
            is_same = found.document is None and not expected and found.tag == ABSENT
        else:
            is_same = hashlib.sha256(found.document).hexdigest() == expected
        if is_same:
            # The tag of another document is known only once its entry is.
            self._tags[commit.name] = found.tag
        return is_same

    def _remove_blobs(self, commit: Commit) -> None:
        for name in commit.after:
            # The next comparison of the key tries again, and reports remaining blobs.
            with suppress(StoreUnavailableError):
                self._vault.delete(name)

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
        """
        See `Records.put`.

        Each put expects the tag of the put before, so that one that is late can't set a
        counter back.
        """
        with self._lock_of(name):
            self.check_usable()
            known = self._tags.pop(name, None)
            if known is None or not self._put(name, data, known):
                # Nobody else may write, so what is there is an earlier put of ours.
                found = self._vault.get(name)
                self.check_usable()
                if not self._put(name, data, ABSENT if found is None else found.tag):
                    raise StoreUnavailableError("Another process writes this record.")
            made()

    def _put(self, name: str, data: bytes, tag: str) -> bool:
        try:
            tag = self._vault.put_surely(name, data, expected=tag)
        except VaultConflictError:
            return False
        if name.startswith(USES):
            self._tags[name] = tag
        return True

    def delete(
        self, names: Sequence[str], /, gone: Callable[[str], None] = lambda name: None
    ) -> None:
        """See `Records.delete`."""
        for name in names:
            with self._lock_of(name):
                self.check_usable()
                self._tags.pop(name, None)
                self._vault.delete(name)
            gone(name)

    def _lock_of(self, name: str) -> threading.Lock | threading.RLock:
        is_counter = name.startswith(USES)
        return self._stripes[hash(name) % _STRIPES] if is_counter else self._lock

    def close(self) -> None:
        """Give the lease up, after the commit that is under way."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            # With a put still on its way, others must wait until the lease ends.
            self._lease.end(release=not self._unsettled)
            with suppress(StoreUnavailableError):
                self._vault.close()


class RemoteKeyStore(RecordKeyStore):
    """Key store in a remote vault; arguments and errors as of `VaultRecords`."""

    def __init__(
        self,
        vault: RemoteKeyVault,
        *,
        clock: Clock,
        entropy: Entropy,
        holder: str,
        patient: bool = False,
    ) -> None:
        records = VaultRecords(
            vault, clock=clock, entropy=entropy, holder=holder, patient=patient
        )
        super().__init__(records, KeyIndex())
        try:
            self._load()
        except BaseException:
            records.close()
            raise
