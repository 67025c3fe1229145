# SPDX-License-Identifier: MIT
"""
Key store and use counters over a record store and an index.

A change writes its sealed blobs first and then replaces the document, which is the only
commit point; blobs that the new document names no more are deleted last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from hsm_core._internal.keyring.documents import is_key_id, read_index
from hsm_core._internal.stores.records import (
    ABORTED,
    KEYS,
    META,
    USES,
    Commit,
    Records,
    UnsettledError,
    blob_name,
    check_change,
    check_material_id,
    check_meta_name,
    check_operation_id,
    check_versions,
    document_name,
    key_of,
    unknown_outcome,
)
from hsm_core.errors import (
    ConflictError,
    GenerationConflictError,
    InvalidInputError,
    KeyNotFoundError,
    KeyTamperedError,
    NameTakenError,
    OperationAbortedError,
    StoreUnavailableError,
)
from hsm_core.model import Integrity, KeyId, KeyState
from hsm_core.protocols import (
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    KeyStore,
    OperationMark,
    StoreAccount,
    StoredKey,
    UseCounters,
)

_VALUE_BYTES: Final = 4096


class RecordUseCounters(UseCounters):
    """
    Values as records.

    Args:
        records: Closed by the key store that has them too.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def __repr__(self) -> str:
        return f"<RecordUseCounters in {self._records!r}>"

    def get(self, material_id: str, /) -> bytes | None:
        """Return the value of a material, or None; empty if it can't be one."""
        check_material_id(material_id)
        return self._records.stored(USES + material_id, _VALUE_BYTES)

    def put(self, material_id: str, value: bytes, /) -> None:
        """Replace the value of a material; see `UseCounters.put`."""
        check_material_id(material_id)
        self._records.put(USES + material_id, value)

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """Store the first value of a material; see `UseCounters.put_first`."""
        check_material_id(material_id)
        self._records.put(USES + material_id, value, is_first=True)

    def discard(self, material_id: str, /) -> None:
        """Delete the value of a material, durably, if there is one."""
        check_material_id(material_id)
        self._records.delete([USES + material_id])

    def material_ids(self) -> list[str]:
        """Return every material that has a value; other names are left alone."""
        return [name for name in self._records.ids(USES) if is_key_id(name)]


_META_BYTES: Final = 1024 * 1024
_MOST_REMEMBERED: Final = 4096
"""How many operations are known not to be aborted, without being asked for again."""


def claimed(entry: IndexEntry) -> str:
    """Return the name that a key has for itself alone; empty if none."""
    return "" if entry.state == KeyState.DESTROYED else entry.name


class KeyEntries(Protocol):
    """
    Index of a key store: in memory, or tables of a database. Thread-safe.

    Changes are made in the ``with`` block of `Records.writing`.
    """

    def knows(self, key_id: KeyId, /) -> bool:
        """Return whether a key has an entry."""
        ...

    def leads_to(self, key_id: KeyId, /) -> bool:
        """Return whether all leads to a key that should by its entry."""
        ...

    def key_ids(self) -> Iterable[KeyId]:
        """Return the ids of all keys, oldest key first."""
        ...

    def entry(self, reference: str, /) -> IndexEntry | None:
        """Return the entry of a key by id, or by name if not destroyed."""
        ...

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page, newest key first."""
        ...

    def digests(self, bucket: int | None, /) -> Iterable[KeyDigest]:
        """Return generation and digest of all keys, or of those of one bucket."""
        ...

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        ...

    def generation(self, key_id: KeyId, /) -> int | None:
        """Return the generation of a key; None if it has no entry."""
        ...

    def holder(self, name: str, /) -> KeyId | None:
        """Return the key, not destroyed, that has a name."""
        ...

    def mark(self, key_id: KeyId, /) -> None:
        """Note that a key is about to change."""
        ...

    def abort(self, operation_id: str, /) -> None:
        """Refuse further changes with this operation id."""
        ...

    def put(self, entry: IndexEntry, /) -> None:
        """Add or replace the entry of a key."""
        ...

    def correct(self, entry: IndexEntry, /) -> None:
        """Replace the entry of a key, so that all leads to it that should."""
        ...

    def remove(self, key_id: KeyId, /) -> None:
        """Remove a key."""
        ...

    def replace(self, entries: Iterable[IndexEntry], /) -> None:
        """Replace all entries; aborted operations stay aborted."""
        ...

    def rebuild(self, entries: Iterable[IndexEntry], /) -> None:
        """Replace all entries, in any order."""
        ...


class RecordKeyStore(KeyStore):
    """
    Documents and blobs as records.

    Args:
        records: Closed with the store.

        index: Its entries.

    Attributes:
        uses: Use counters in the same records, open as long as the store is.
    """

    def __init__(self, records: Records, index: KeyEntries) -> None:
        self._records = records
        self._index = index
        self._not_aborted: set[str] = set()
        self.uses: UseCounters = RecordUseCounters(records)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._records!r}>"

    @property
    def available(self) -> bool:
        """Whether it is open, and every write that failed was settled."""
        return self._records.available

    @property
    def is_remote(self) -> bool:
        """See `KeyStore.is_remote`."""
        return self._records.is_remote

    def reopen(self) -> None:
        """Make durable what failed writes left, and read it again; see `KeyStore`."""
        self._records.reopen(self._take, self._load)

    def _take(self, name: str, stored: bytes | None) -> None:
        if name.startswith(ABORTED) and stored is not None:
            self._index.abort(name.removeprefix(ABORTED))
        elif name.startswith(KEYS) and name == document_name(key_of(name)):
            self._adopt(key_of(name), stored)

    def _adopt(self, key_id: KeyId, stored: bytes | None) -> IndexEntry | None:
        if stored is None:
            self._index.remove(key_id)
            return None
        entry = read_index(key_id, stored)
        self._index.put(entry)
        return entry

    @contextmanager
    def _changing(self) -> Iterator[None]:
        # Only a commit has an outcome that callers must know.
        try:
            with self._records.writing():
                yield
        except UnsettledError as error:
            raise StoreUnavailableError from error

    # Documents and blobs

    def get(self, key_id: KeyId, /) -> StoredKey:
        """
        Return a key's document; empty if something else lies there.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: There is, and its document is gone.
        """
        self._records.check_usable()
        if not self._index.knows(key_id):
            raise KeyNotFoundError
        stored = self._records.stored(document_name(key_id))
        if stored is None:
            raise KeyTamperedError(
                f"The document of key {key_id} is missing.",
                key_id=key_id,
                integrity=Integrity.MISSING.value,
            )
        return StoredKey(key_id, stored)

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """Return the sealed blob of a version, or None if there is none."""
        self._records.check_usable()
        with suppress(InvalidInputError):
            check_versions(key_id, (version,))
            if self._index.knows(key_id):
                return self._records.stored(blob_name(key_id, version))
        return None

    def commit(self, change: KeyChange, /) -> None:
        """Make one change; see `KeyStore.commit`."""
        check_change(change)
        key_id = change.entry.key_id
        commit = Commit(
            name=document_name(key_id),
            data=change.document,
            expected_generation=change.expected_generation,
            generation=change.entry.generation,
            tenure=self._records.tenure,
            expected=lambda: self._digest(key_id),
            counted=change.expected_digest,
            before={blob_name(key_id, n): blob for n, blob in change.blobs.items()},
            after=[blob_name(key_id, n) for n in change.removed_blobs],
            account=change.account,
            operation_id=change.operation_id,
            check=lambda: self._check(change),
            made=lambda: self._index.put(change.entry),
        )
        try:
            with unknown_outcome(operation_id=change.operation_id):
                self._records.commit(commit)
        except GenerationConflictError:
            self._adopt_other(key_id)
            raise

    def stage(
        self, key_id: KeyId, document: bytes, blobs: Mapping[int, bytes], /
    ) -> None:
        """Write a new key ahead of its commit; see `KeyStore.stage`."""
        check_versions(key_id, tuple(blobs))
        named = {blob_name(key_id, version): blob for version, blob in blobs.items()}
        self._records.stage(document_name(key_id), document, named)

    def discard_staged(self, key_id: KeyId, /) -> None:
        """Remove what was written ahead; see `KeyStore.discard_staged`."""
        self._records.discard_staged(document_name(key_id))

    def _adopt_other(self, key_id: KeyId) -> None:
        """Take over what another process has written in place of a document."""
        if self._records.is_remote:
            with self._records.writing():
                stored = self._records.read_again(document_name(key_id))
                if stored is not None:
                    self._adopt(key_id, stored)

    def _digest(self, key_id: KeyId) -> str:
        entry = self._index.entry(key_id)
        return entry.digest if entry else ""

    def _check(self, change: KeyChange) -> None:
        """
        Check that a change may be made.

        Raises:
            OperationAbortedError: The operation id was aborted, or used before.
            GenerationConflictError: The key is not at the expected generation.
            NameTakenError: Another key, not destroyed, has this name.
        """
        new, expected = change.entry, change.expected_generation
        mark = self.find_operation(change.operation_id)
        if mark is not None and mark.aborted:
            raise OperationAbortedError
        present = self._index.generation(new.key_id)
        # A key whose document can't be read has generation 0 here, as one that is not
        # there; it must not be overwritten as if it were new.
        if (present or 0) != expected or (present is not None and not expected):
            raise GenerationConflictError
        if mark is not None:
            raise OperationAbortedError("The operation id was already used.")
        name = claimed(new)
        if name and self._index.holder(name) not in {None, new.key_id}:
            raise NameTakenError
        if expected:  # What is new is missing in the index until it is there.
            self._index.mark(new.key_id)

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """Delete blobs of destroyed versions; see `KeyStore.discard_blobs`."""
        check_versions(key_id, versions)
        with self._changing():
            self._records.delete([blob_name(key_id, version) for version in versions])

    def scan(self) -> Iterator[StoredKey]:
        """
        Return every key that was there when the walk began, and those unknown here.

        A key whose document is gone, or none of ours, comes with an empty one.
        """
        for key_id, stored in self._records.read_documents(self._key_ids()):
            if stored is not None or self._index.knows(key_id):
                is_listed = self._index.leads_to(key_id)
                yield StoredKey(key_id, stored or b"", is_listed=is_listed)

    def _key_ids(self) -> Iterator[KeyId]:
        self._records.check_usable()
        # A database has no other list of keys than its index.
        stored = {KeyId(key_id) for key_id in self._records.ids(KEYS)}
        for key_id in self._index.key_ids():
            stored.discard(key_id)
            yield key_id
        yield from sorted(filter(is_key_id, stored))

    # Index

    def entry(self, reference: str, /) -> IndexEntry | None:
        """Return the index entry of a key by id, or by name if not destroyed."""
        self._records.check_usable()
        return self._index.entry(reference)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page of the index."""
        self._records.check_usable()
        return self._index.find(query)

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """Return what the index says of all keys, or of those of one bucket."""
        self._records.check_usable()
        yield from self._index.digests(bucket)

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """Read a key's document again; see `KeyStore.refresh`."""
        if not is_key_id(key_id):
            return None
        with self._records.writing():
            stored = self._records.read_again(document_name(key_id))
            return self._adopt(key_id, stored)

    def correct(self, entry: IndexEntry, /) -> None:
        """Put the index right for a key; see `KeyStore.correct`."""
        with self._records.writing():
            if self._index.knows(entry.key_id):
                self._index.correct(entry)

    def rebuild(self) -> None:
        """Rebuild the index from all documents."""
        with self._records.writing():
            self._load()

    def _load(self) -> None:
        """Read all documents and, where lists of them are kept, abort marks."""
        self._not_aborted.clear()
        self._load_aborted()
        found = self._records.read_documents(self._key_ids(), again=True)
        self._index.rebuild(
            read_index(key_id, stored) for key_id, stored in found if stored is not None
        )

    def _load_aborted(self) -> None:
        for operation_id in self._records.ids(ABORTED):
            self._index.abort(operation_id)

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """Replace the index; see `KeyStore.reindex`."""
        with self._records.writing():
            self._index.replace(entries)

    # Operation ids

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        self._records.check_usable()
        with suppress(InvalidInputError):
            check_operation_id(operation_id)
            mark = self._index.find_operation(operation_id)
            if mark is None and self._look_for_abort(operation_id):
                return OperationMark(key_id=None, aborted=True)
            return mark
        return None

    def _look_for_abort(self, operation_id: str) -> bool:
        """Ask for an abort mark that a list may lack; return whether it is there."""
        # Once it was not there, only this process can put it there.
        if not self._records.is_remote or operation_id in self._not_aborted:
            return False
        if self._records.stored(ABORTED + operation_id) is not None:
            self._index.abort(operation_id)
            return True
        if len(self._not_aborted) >= _MOST_REMEMBERED:
            self._not_aborted.clear()
        self._not_aborted.add(operation_id)
        return False

    def abort(self, operation_id: str, /) -> None:
        """Mark an operation id as aborted; see `KeyStore.abort`."""
        check_operation_id(operation_id)
        with self._changing():
            mark = self._index.find_operation(operation_id)
            if mark is not None and not mark.aborted:
                raise ConflictError("The operation was already committed.")
            self._not_aborted.discard(operation_id)
            self._records.put(
                ABORTED + operation_id,
                b"aborted\n",
                made=lambda: self._index.abort(operation_id),
            )

    # Account and small values

    def read_account(self) -> StoreAccount | None:
        """Return the account as of the last commit; None if none is kept."""
        return self._records.read_account()

    def write_account(self, account: StoreAccount, /) -> None:
        """Replace the account, durably, where one is kept."""
        self._records.write_account(account)

    def read_meta(self, name: str, /) -> bytes | None:
        """
        Return a small named value.

        Raises:
            IntegrityError: Something else lies there.
        """
        check_meta_name(name)
        return self._records.read(META + name, _META_BYTES)

    def write_meta(self, name: str, value: bytes, /) -> None:
        """Replace a small named value; after an error either of both may be there."""
        check_meta_name(name)
        with self._changing():
            self._records.put(META + name, value)

    def close(self) -> None:
        """Release the lock, after the commit that is under way."""
        self._records.close()
