# SPDX-License-Identifier: MIT
"""
Key store in a remote vault.

A change writes its blobs first and then replaces the document by one conditional put,
which is the only commit point; it expects the very object that the change was prepared
on. What is listed and looked up is answered from an index in memory.

Where a put may have been done or not, the store refuses everything until it is opened
again; that fences the document, so that a put still on its way is refused when it
arrives. A list may lag behind: what it lacks is never called missing before the object
itself was asked for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from hsm_core._internal.keyring.documents import peek
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores import naming
from hsm_core._internal.stores.remote import names
from hsm_core._internal.stores.remote.access import UnsettledPutError, VaultAccess
from hsm_core._internal.stores.remote.known import KnownDocuments
from hsm_core._internal.stores.remote.leases import RemoteLeases, WriterLease
from hsm_core._internal.stores.remote.uses import RemoteUseCounters
from hsm_core.errors import (
    ConflictError,
    HSMError,
    IntegrityError,
    InvalidInputError,
    KeyNotFoundError,
    KeyTamperedError,
    OutcomeUnknownError,
    StoreUnavailableError,
    VaultConflictError,
)
from hsm_core.model import Integrity, KeyId
from hsm_core.protocols import (
    ABSENT,
    Clock,
    Entropy,
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    KeyStore,
    OperationMark,
    RemoteKeyVault,
    StoreAccount,
    StoredKey,
)

_META_BYTES: Final = 1024 * 1024
_REMEMBERED: Final = 4096
"""How many operations are known not to be aborted, without being asked for again."""


class RemoteKeyStore(KeyStore):
    """
    Documents and blobs as objects of a vault.

    Args:
        vault: Closed with the store, and if it can't be opened.

        clock: Tells how long this process may write.

        entropy: Makes each writing of a document one of its own.

        holder: Who opens it; 1 to 128 visible ASCII characters, unique among processes.

        patient: Wait for the end of the lease of a process that seems to be dead.

    Raises:
        StoreLockedError: Another process has it open.
        StoreUnavailableError: The vault can't be read or written.

    Attributes:
        uses: Use counters in the same vault, open as long as the store is.
    """

    def __init__(
        self,
        vault: RemoteKeyVault,
        *,
        clock: Clock,
        entropy: Entropy,
        holder: str,
        patient: bool = False,
    ) -> None:
        self._vault = VaultAccess(vault)
        self._known = KnownDocuments(self._vault, entropy)
        self.uses = RemoteUseCounters(self._vault, self._check_usable)
        self._tenure = WriterLease(
            RemoteLeases(self._vault, clock, entropy), clock, holder
        )
        self._not_aborted: set[str] = set()
        self._unsettled: dict[KeyId, KeyChange] = {}
        self._writing = threading.Lock()
        self._process = os.getpid()
        self._is_closed = False
        try:
            self._tenure.begin(patient=patient)
            self._known.load()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<RemoteKeyStore in {self._vault!r}>"

    def _check_usable(self) -> None:
        self._check_open()
        if self._unsettled:
            raise StoreUnavailableError("A write failed; reopen the key store.")
        if not self._tenure.is_held:
            raise StoreUnavailableError(
                "The key store lost its writer lease; reopen it."
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailableError("The key store is closed.")
        if os.getpid() != self._process:
            raise StoreUnavailableError(
                "The key store was opened by the parent process; open it again in "
                "this one."
            )

    @property
    def is_remote(self) -> bool:
        """True: each read is a request."""
        return True

    @property
    def available(self) -> bool:
        """Whether it is open, nothing is in doubt, and nobody else may write."""
        try:
            self._check_usable()
        except StoreUnavailableError:
            return False
        return True

    def reopen(self) -> None:
        """Take the lease again, and find out what is in doubt; see `KeyStore`."""
        with self._writing:
            self._check_open()
            if not self._tenure.is_held and self._tenure.resume():
                self._load()
            for key_id, change in list(self._unsettled.items()):
                found = self._known.fence(key_id, epoch=self._tenure.epoch)
                if found.document == change.document:
                    self._remove_blobs(change)
                del self._unsettled[key_id]

    def _load(self) -> None:
        self._not_aborted.clear()
        self._known.load()

    def get(self, key_id: KeyId, /) -> StoredKey:
        """
        Return a key's document.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: There is, and its document is gone.
        """
        if not self._knows(key_id):
            raise KeyNotFoundError
        found = self._known.read(key_id)
        if found.document is None:
            raise KeyTamperedError(
                f"The document of key {key_id} is missing.",
                key_id=key_id,
                integrity=Integrity.MISSING.value,
            )
        return StoredKey(key_id, found.document)

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """Return the sealed blob of a version, or None if there is none."""
        if not self._knows(key_id):
            return None
        found = self._vault.get(names.blob_name(key_id, version))
        return None if found is None else found.data

    def _knows(self, key_id: KeyId) -> bool:
        self._check_usable()
        with self._known.index() as index:
            return key_id in index

    def commit(self, change: KeyChange, /) -> None:
        """Make one change; see `KeyStore.commit`."""
        naming.check_change(change)
        key_id = change.entry.key_id
        with self._writing:
            self._check_usable()
            self._find_abort(change.operation_id)
            with self._known.index() as index:
                index.check(change)
            failpoint("store.before_blobs")
            for version, blob in change.blobs.items():
                self._put_blob(key_id, version, blob)
            failpoint("store.after_blobs")
            failpoint("store.before_document")
            self._check_usable()
            with self._committing(change):
                self._known.commit(change, epoch=self._tenure.epoch)
                failpoint("store.after_document")
            self._remove_blobs(change)
            failpoint("store.after_remove")

    @contextmanager
    def _committing(self, change: KeyChange) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            unsettled = isinstance(error, UnsettledPutError)
            if isinstance(error, HSMError) and not unsettled:
                raise
            self._unsettled[change.entry.key_id] = change
            if not isinstance(error, Exception):
                raise
            raise _unknown(change) from error

    def _put_blob(self, key_id: KeyId, version: int, blob: bytes) -> None:
        name = names.blob_name(key_id, version)
        with suppress(VaultConflictError):
            self._vault.put_surely(name, blob, expected=ABSENT)
            return
        # A blob that no document names was left by a commit that did not come about.
        document = self._known.read(key_id).document
        if document is not None and _names(key_id, document, version):
            raise ConflictError(
                f"The sealed blob of version {version} is immutable and can't be "
                "replaced."
            )
        self._vault.replace(name, blob)

    def _remove_blobs(self, change: KeyChange) -> None:
        for version in change.removed_blobs:
            # Whoever compares the key tries again, and says which blob is still there.
            with suppress(StoreUnavailableError):
                self._vault.delete(names.blob_name(change.entry.key_id, version))

    def entry(self, reference: str, /) -> IndexEntry | None:
        """Return the index entry of a key by id, or by name if not destroyed."""
        self._check_usable()
        with self._known.index() as index:
            return index.entry(reference)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page of the index."""
        self._check_usable()
        with self._known.index() as index:
            return index.find(query)

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands; abort marks are asked for."""
        self._check_usable()
        with suppress(InvalidInputError):
            naming.check_operation_id(operation_id)
            with self._known.index() as index:
                mark = index.find_operation(operation_id)
            if mark is not None:
                return mark
            self._find_abort(operation_id)
            with self._known.index() as index:
                return index.find_operation(operation_id)
        return None

    def _find_abort(self, operation_id: str) -> None:
        # Once it was not there, only this process can put it there.
        if operation_id in self._not_aborted:
            return
        mark = self._vault.get(names.aborted_name(operation_id))
        with self._known.index() as index:
            if mark is not None:
                index.abort(operation_id)
                return
            if len(self._not_aborted) >= _REMEMBERED:
                self._not_aborted.clear()
            self._not_aborted.add(operation_id)

    def abort(self, operation_id: str, /) -> None:
        """Mark an operation id as aborted; see `KeyStore.abort`."""
        naming.check_operation_id(operation_id)
        with self._writing:
            self._check_usable()
            with self._known.index() as index:
                index.check_abort(operation_id)
                self._not_aborted.discard(operation_id)
            name = names.aborted_name(operation_id)
            with suppress(VaultConflictError):
                self._vault.put_surely(name, b"aborted\n", expected=ABSENT)
            with self._known.index() as index:
                index.abort(operation_id)

    def scan(self) -> Iterator[StoredKey]:
        """
        Return every key that was there when the walk began, listed or known.

        A key whose document is gone comes with an empty one.
        """
        self._check_usable()
        known = set(self._known.key_ids())
        for key_id, found in self._known.read_all(known):
            self._check_usable()
            if found.document is not None or key_id in known:
                yield StoredKey(key_id, found.document or b"")

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """Return what the index says of all keys, or of those of one bucket."""
        self._check_usable()
        with self._known.index() as index:
            found = index.digests(bucket)
        yield from found

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """
        Read a key's document again; see `KeyStore.refresh`.

        One that an earlier tenure wrote is fenced first, so that what this returns
        stays true even if that process still has a change of this key on its way.
        """
        with self._writing:
            self._check_usable()
            if not naming.is_key_id(key_id):
                return None
            found = self._known.read(key_id)
            if found.epoch != self._tenure.epoch:
                found = self._known.fence(key_id, epoch=self._tenure.epoch)
            entry = self._known.adopt(key_id, found)
            if entry is None:
                with self._known.index() as index:
                    index.remove(key_id)
            return entry

    def correct(self, entry: IndexEntry, /) -> None:
        """Put the index right for a key; see `KeyStore.correct`."""
        with self._writing, self._known.index() as index:
            self._check_usable()
            if entry.key_id in index:
                index.put(entry)

    def rebuild(self) -> None:
        """Rebuild the index from all documents."""
        with self._writing:
            self._check_usable()
            self._load()

    def read_account(self) -> None:
        """Return nothing: no account is kept here."""
        self._check_usable()

    def write_account(self, account: StoreAccount, /) -> None:
        """Do nothing: no account is kept here."""
        self._check_usable()

    def reindex(self, entries: Iterable[IndexEntry], /) -> None:
        """Replace the index; see `KeyStore.reindex`."""
        with self._writing, self._known.index() as index:
            self._check_usable()
            index.replace(entries)

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """Delete blobs of destroyed versions; see `KeyStore.discard_blobs`."""
        with self._writing:
            self._check_usable()
            for version in versions:
                self._vault.delete(names.blob_name(key_id, version))

    def read_meta(self, name: str, /) -> bytes | None:
        """
        Return a small named value.

        Raises:
            IntegrityError: It is longer than any that was written.
        """
        naming.check_meta_name(name)
        self._check_usable()
        found = self._vault.get(names.meta_name(name))
        if found is not None and len(found.data) > _META_BYTES:
            raise IntegrityError(f"The stored value {name} is too long.")
        return None if found is None else found.data

    def write_meta(self, name: str, value: bytes, /) -> None:
        """Replace a small named value; after an error either of both may be there."""
        naming.check_meta_name(name)
        with self._writing:
            self._check_usable()
            self._vault.replace(names.meta_name(name), value)

    def close(self) -> None:
        """Give the lease up, after the commit that is under way."""
        with self._writing:
            if self._is_closed:
                return
            self._is_closed = True
            # With a put still on its way, others must wait until the lease ends.
            self._tenure.end(release=not self._unsettled)
            with suppress(StoreUnavailableError):
                self._vault.close()


def _names(key_id: KeyId, stored: bytes, number: int) -> bool:
    """Return whether a document names the blob of a version, or can't be read."""
    document = peek(key_id, stored)
    if document is None:
        return True
    version = document.version(number)
    return version is not None and bool(version.blob_sha256)


def _unknown(change: KeyChange) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "The outcome of the change is unknown; reopen the store.",
        operation_id=change.operation_id,
    )
