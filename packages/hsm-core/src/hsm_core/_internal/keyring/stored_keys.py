# SPDX-License-Identifier: MIT
"""
Authenticated reads from an untrusted key store.

A document is accepted if its MAC is right, if it matches the set digest, and if its
index entry agrees. A suspected fault is read again while no change is being committed,
and the index entry is compared with the set digest; only then is the key disabled. What
was found is kept until the key is recovered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from itertools import islice
from typing import Final, Protocol, TypeVar

import msgspec

from hsm_core._internal.keyring.documents import (
    KeyDocument,
    decode_document,
    document_digest,
    index_of,
    read_index,
)
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.known_documents import KnownDocument, KnownDocuments
from hsm_core._internal.keyring.names import KeyNames, name_of
from hsm_core._internal.keyring.set_digest import KeySetDigest
from hsm_core._internal.lib.cache import BoundedCache
from hsm_core._internal.lib.cells import Cell, KeyCells
from hsm_core.errors import (
    Fact,
    HSMLockedError,
    KeyNotFoundError,
    KeyTamperedError,
    NameTakenError,
    StoreUnavailableError,
)
from hsm_core.model import Integrity, KeyId
from hsm_core.protocols import (
    IndexEntry,
    KeyDigest,
    KeyStore,
    KnownKey,
    StoredKey,
    bucket_of,
)

_KEY_ID_CHARACTERS: Final = 36
_REMOTE_READERS: Final = 8
_READ_AT_ONCE: Final = 64
_MET: Final = 8192

Item = TypeVar("Item")

Result = TypeVar("Result")


class Finding(msgspec.Struct, frozen=True):
    """Integrity finding of a key; *problem* as in `KeyFinding`."""

    integrity: Integrity
    problem: str
    reason: str


class TamperedKeys:
    """
    Keys that are disabled, wholly or in part. Thread-safe.

    Each stays disabled until it is recovered, or the next start finds it intact.
    Corrected index rows are findings until the next start.

    Args:
        on_tampering: Called once for each key.

    Attributes:
        changes: Number of findings added and removed.
        cells: Bumped for each key whose document, blobs or findings change.
    """

    def __init__(self, on_tampering: Callable[[KeyId, Finding], None]) -> None:
        self._on_tampering = on_tampering
        self.cells = KeyCells()
        self._found: dict[KeyId, Finding] = {}
        self._suspected: set[KeyId] = set()
        self._corrected: set[KeyId] = set()
        self._kept: set[KeyId] = set()
        self._lock = threading.Lock()
        self.changes = 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._suspected.union(self._found))

    def integrity(self, key_id: KeyId) -> Integrity:
        """Return a key's known integrity, without checking again."""
        found = self._found.get(key_id)
        return found.integrity if found else Integrity.OK

    def check(self, key_id: KeyId) -> None:
        """
        Check that a key has no finding, without checking the store again.

        Raises:
            KeyTamperedError: Something was.
        """
        found = self._found.get(key_id)
        if found is not None:
            raise tampering(key_id, found.reason, found.integrity, found.problem)

    def condemn(self, key_id: KeyId, error: KeyTamperedError) -> None:
        """Disable a key; the first finding is kept."""
        missing = error.facts.get("integrity") == Integrity.MISSING.value
        usual = "missing" if missing else "document"
        problem = str(error.facts.get("problem", usual))
        kind = Integrity.MISSING if missing else Integrity.TAMPERED
        reason = "Its stored data was altered."
        if "problem" in error.facts:
            reason = str(error).partition(" was tampered with: ")[2] or reason
        elif "format" in error.facts:
            # A newer release has written it: who used this one should learn that.
            reason = str(error)
        finding = Finding(kind, problem, reason)
        with self._lock:
            is_news = key_id not in self._found
            self._found.setdefault(key_id, finding)
            self.changes += is_news
        if is_news:
            self.cells.of(key_id).bump()
            self._on_tampering(key_id, finding)

    def suspect(self, key_id: KeyId, kind: Integrity) -> None:
        """Note a key with an unauthentic use counter; it may still decrypt."""
        with self._lock:
            is_news = key_id not in self._suspected
            self._suspected.add(key_id)
        if is_news:
            self.cells.of(key_id).bump()
            self._on_tampering(key_id, Finding(kind, "counter", ""))

    def trust(self, key_id: KeyId) -> None:
        """Clear the finding of a key's use counter after it was replaced."""
        with self._lock:
            self._suspected.discard(key_id)

    def note_kept(self, key_id: KeyId, *, is_kept: bool) -> None:
        """Note whether a key has a sealed blob of a destroyed version still."""
        with self._lock:
            (self._kept.add if is_kept else self._kept.discard)(key_id)

    def note_corrected(self, key_id: KeyId) -> bool:
        """
        Note a key with a corrected index row; it stays enabled.

        Returns:
            Whether it is the first time since the start.
        """
        with self._lock:
            is_news = key_id not in self._corrected
            self._corrected.add(key_id)
            self.changes += 1
        return is_news

    def release(self, key_id: KeyId) -> None:
        """Clear the findings of a key's document and blobs."""
        with self._lock:
            self.changes += self._found.pop(key_id, None) is not None
        self.cells.of(key_id).bump()

    def problems(self) -> Mapping[KeyId, str]:
        """Return the finding of each key that has one."""
        with self._lock:
            found = dict.fromkeys(self._corrected, "index")
            found.update(dict.fromkeys(self._kept, "kept"))
            found.update(dict.fromkeys(self._suspected, "counter"))
            found.update((key, finding.problem) for key, finding in self._found.items())
            return dict(sorted(found.items()))


class StoreLock(msgspec.Struct):
    """
    Lock of the whole HSM, and its reason.

    Attributes:
        reason: For people; empty if it is not locked.
        facts: For programs.
        changes: Bumped when it is locked or unlocked, and when the store is reopened.
    """

    reason: str = ""
    facts: Mapping[str, Fact] = msgspec.field(default_factory=dict)
    changes: Cell = msgspec.field(default_factory=Cell)

    def set(self, reason: str, facts: Mapping[str, Fact]) -> None:
        """Lock it."""
        self.facts, self.reason = dict(facts), reason
        self.changes.bump()

    def open(self) -> None:
        """Unlock it."""
        self.reason = ""
        self.changes.bump()

    def check(self) -> None:
        """
        Check that it is not locked.

        Raises:
            HSMLockedError: It is.
        """
        if self.reason:
            raise HSMLockedError(f"The HSM is locked. {self.reason}", **self.facts)


def tampering(
    key_id: KeyId,
    reason: str,
    found: Integrity = Integrity.TAMPERED,
    problem: str = "",
) -> KeyTamperedError:
    """Return the error for a key whose stored form was altered or is missing."""
    facts = {"problem": problem} if problem else {}
    return KeyTamperedError(
        f"The stored key {key_id} was tampered with: {reason}",
        key_id=key_id,
        integrity=found.value,
        **facts,
    )


class FollowedFeed(Protocol):
    """Feed of the changes of a store that other nodes change too."""

    @property
    def revision(self) -> int:
        """Number of the newest change that was applied here."""
        ...

    def start(self) -> str:
        """
        Adopt set digest and position of the store; return what is wrong with them.

        Raises:
            HSMError: They can't be read.
        """
        ...

    def begin_following(self) -> None:
        """Follow the feed from now on, in a thread."""
        ...

    def close(self) -> None:
        """End that thread; once is enough."""
        ...

    def catch_up(self) -> object:
        """
        Apply everything that is committed.

        Raises:
            HSMError: It can't be read, or is not the one that was followed.
        """
        ...

    def quiet(self) -> AbstractContextManager[None]:
        """Keep all nodes from committing changes; all that were made are applied."""
        ...

    def find(self, key_id: KeyId, generation: int, /) -> tuple[int, str]:
        """
        Return the change of a key that led to a generation.

        Returns:
            Its revision, and the digest of the document; 0 if there is none.
        """
        ...

    def known(self) -> Mapping[KeyId, KnownKey]:
        """
        Return the last state of each key by all changes that were applied.

        Raises:
            HSMError: They can't be read, or do not lead there.
        """
        ...

    def accept(
        self, key_id: KeyId, before: KnownKey | None, after: KnownKey | None, /
    ) -> None:
        """
        Count a key as it is stored, on every node.

        Args:
            key_id: The key.

            before: As it was counted.

            after: As it is stored; None if it is gone.

        Raises:
            HSMError: It can't be counted now.
        """
        ...

    def recover(
        self, count: Callable[[Mapping[KeyId, KnownKey]], Mapping[KeyId, KnownKey]], /
    ) -> None:
        """
        Accept position of the store as it is, and the keys that are to be counted.

        Args:
            count: Returns these keys, as they are stored, given the last state of each
                key by the feed; of none if the feed was altered. It may be called
                again.

        Raises:
            HSMError: They can't be read or written.
        """
        ...

    @property
    def made(self) -> tuple[int, str]:
        """Revision and set digest of this thread's last change."""
        ...


class AuthenticatedReader:
    """
    Reads documents from a `KeyStore`. Thread-safe.

    Args:
        store: Not trusted.

        ring: Opened key ring.

        on_tampering: Called once for each key that fails an integrity check.

        on_correction: Called once for each key with a corrected index entry.

    Attributes:
        census: Set digest of all keys as the audit log knows them.
        tampered: Keys that fail integrity checks.
        committing: Held while a change is stored and recorded, so that a commit in
            progress is not mistaken for tampering.
        names: Names in use.
        doubtful: Buckets with wrong sums, to be compared with the audit log; their keys
            are disabled until then.
        feed: Changes of other nodes; None where nobody else changes the store.
    """

    def __init__(
        self,
        store: KeyStore,
        ring: KeyRing,
        on_tampering: Callable[[KeyId, Finding], None],
        on_correction: Callable[[KeyId], None],
    ) -> None:
        self.store = store
        self.ring = ring
        self.census = KeySetDigest(ring)
        self.tampered = TamperedKeys(on_tampering)
        self.committing = threading.RLock()
        self.feed: FollowedFeed | None = None
        self.names = KeyNames(self._documents_of_all, self._look_up)
        self.doubtful: set[int] = set()
        self._on_correction = on_correction
        self._rewritten: set[KeyId] = set()
        self._documents = KnownDocuments()
        # By name, as met last in the database of a cluster: for guesses of speed alone.
        self._met: BoundedCache[str, KeyId] = BoundedCache(_MET)

    def quiet(self) -> AbstractContextManager[object]:
        """Return a context within which no change is being committed, by any node."""
        return self.feed.quiet() if self.feed else self.committing

    def entry(self, reference: str) -> IndexEntry | None:
        """
        Return the index entry of a key by id or name.

        Raises:
            KeyTamperedError: The index makes no sense.
        """
        try:
            entry = self.store.entry(reference)
        except KeyTamperedError as error:
            key_id = KeyId(str(error.facts.get("key_id", reference)))
            entry = self._entry_again(reference, key_id)
        if entry is not None and self.feed is not None:
            self._met.put(reference, entry.key_id)
        holder = self.names.holder(reference)
        if holder is None or (entry is not None and entry.key_id == holder):
            return entry
        return self._entry_of_holder(reference)

    def _entry_again(self, reference: str, key_id: KeyId) -> IndexEntry | None:
        """Return an entry after a key's, which made no sense, was made again."""
        with self.quiet():
            if self.store.refresh(key_id) is not None:
                self.note_corrected(key_id)
            return self.store.entry(reference)

    def _entry_of_holder(self, name: str) -> IndexEntry | None:
        """Return the entry of the key that holds a name, and correct the index."""
        with self.quiet():
            # Unless a commit was just landing.
            entry, holder = self.store.entry(name), self.names.holder(name)
            if holder is None or (entry is not None and entry.key_id == holder):
                return entry
            self.tampered.check(holder)
            entry = self.store.entry(holder)
            if entry is not None:
                self._list_again(self._read(holder, entry)[0])
            return entry

    def require_free(self, name: str, key_id: str = "") -> None:
        """
        Check that no key has a name, by authenticated documents.

        Args:
            name: Not empty.

            key_id: The key that is to have it, if there is one already.

        Raises:
            NameTakenError: Another key has it.
            KeyTamperedError: A key whose name is unknown may have it.
            UnavailableError: Store or audit log can't be read, or compared, now.
        """
        self.names.confirm()
        try:
            entry = self.entry(name)
        except KeyTamperedError as error:
            raise NameTakenError from error
        if entry is not None and entry.key_id != key_id:
            raise NameTakenError
        self.names.check(name, key_id)

    def _documents_of_all(self) -> Iterator[tuple[KeyId, KeyDocument | None]]:
        """Read every key that the audit log knows; None for an unauthentic document."""
        if self.census.unverified:
            # One walk over the index, where each bucket could be a request.
            agreeing = self.census.agreeing(self.store.digests())
            self.census.unverified -= agreeing - self.doubtful
        for bucket in sorted(self.census.unverified):
            self.check_bucket(bucket)
        condemned = set(self.tampered.problems())
        key_ids = (key.key_id for key in self.store.digests())
        for key_id, document in self.side_by_side(self._look_up, key_ids):
            condemned.discard(key_id)
            if document is not None:
                yield key_id, document
            elif self.store.entry(key_id) is not None:
                condemned.add(key_id)
        pinned = self.census.pinned()
        for key_id in condemned:
            if pinned.get(key_id, key_id) is not None:
                yield key_id, None

    def _look_up(self, key_id: KeyId) -> tuple[KeyId, KeyDocument | None]:
        with suppress(KeyTamperedError, KeyNotFoundError):
            return key_id, self.document(key_id)
        return key_id, None

    def look_again(self, reference: str) -> IndexEntry | None:
        """
        Return the entry of a key that the index lacked; None if there is no such key.

        Raises:
            HSMError: The key is gone, or nothing can be said of it now.
        """
        if len(reference) != _KEY_ID_CHARACTERS:
            return None
        try:
            bucket = bucket_of(reference)
        except ValueError:
            return None  # It is a name of this length.
        if self.feed is not None:
            # Nodes share the database: rows may be removed while it is open.
            self.census.unverified.add(bucket)
        self.check_bucket(bucket)
        self.tampered.check(KeyId(reference))
        # Its row may have been put right since.
        return self.entry(reference)

    def known(self, reference: str) -> KeyDocument | None:
        """
        Return a document that is in memory and current, or None; reads nothing.

        Where nodes share a database, their changes take it out of the memory.
        """
        if self.feed is None:
            return self._cached(self.entry(reference))
        found = self._documents.get(self._met.get(reference) or KeyId(reference))
        return found.document if found else None

    def _cached(self, entry: IndexEntry | None) -> KeyDocument | None:
        cached = self._documents.get(entry.key_id) if entry else None
        # A document that is newer than its entry is a commit that is just landing.
        if entry and cached and cached.document.generation >= entry.generation:
            return cached.document
        return None

    def vouched(self, key_ids: Sequence[KeyId]) -> list[KnownDocument | None]:
        """
        Return documents in memory that the set digest vouches for; reads nothing.

        Every change replaces them before it is acknowledged. None for a key whose
        document is not in memory, or whose part of the store is yet to be compared.
        """
        known, census = self._documents.get_all(key_ids), self.census
        if not census.unverified and not census.has_pinned:
            return known
        return [
            None
            if bucket_of(key_id) in census.unverified or census.is_pinned(key_id)
            else found
            for key_id, found in zip(key_ids, known, strict=True)
        ]

    def has_moved(self, documents: Iterable[KeyDocument]) -> bool:
        """Return whether the store has something newer, or nothing, of one of them."""
        for document in documents:
            cached = self._documents.get(document.key_id)
            if cached is not None and cached.document is document:
                continue  # Every change replaces it before it is acknowledged.
            entry = self.entry(document.key_id)
            if entry is None or entry.generation > document.generation:
                return True
        return False

    def document(self, key_id: KeyId, entry: IndexEntry | None = None) -> KeyDocument:
        """
        Return a key's document, authenticated.

        Args:
            key_id: The key.

            entry: Its index entry, if it was just looked up.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: It, or a blob of it, was found changed.
            StoreUnavailableError: It can't be read, or compared, now.
        """
        self.tampered.check(key_id)
        return self._cached(entry or self.entry(key_id)) or self.reread(key_id).document

    def reread(self, key_id: KeyId) -> KnownDocument:
        """
        Read a document from the store again and compare it with what we know.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: It was changed.
            StoreUnavailableError: It can't be read, or compared, now.
        """
        self.check_bucket(bucket_of(key_id))
        entry = self.entry(key_id)
        if entry is None:
            raise KeyNotFoundError
        document, digest = self._read(key_id, entry)
        if self.feed is not None:
            # It may be ahead of the changes that are applied here. A use that says it
            # was decided before them would not notice a fail-over that loses them.
            self.feed.catch_up()
        return self._documents.put(digest, document)

    def side_by_side(
        self, read: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """
        Return what is read for each item, in their order.

        From a remote store several are read at once, so *read* is safe for threads.
        """
        if not self.store.is_remote:
            yield from map(read, items)
            return
        remaining = iter(items)
        with ThreadPoolExecutor(_REMOTE_READERS, "hsm-core-read") as pool:
            while some := list(islice(remaining, _READ_AT_ONCE)):
                yield from pool.map(read, some)

    def examine(self, stored: StoredKey) -> KeyDocument:
        """Return a document that was read from the store; errors as of `reread`."""
        self.check_bucket(bucket_of(stored.key_id))
        entry = self.entry(stored.key_id)
        if entry is None:
            raise KeyNotFoundError
        document = None
        if document_digest(stored.document) == entry.digest:
            with suppress(KeyTamperedError):
                document = self._believed(entry, stored)
        if document is None:
            document = self._read(stored.key_id, entry)[0]
        if not stored.is_listed:
            self._list_again(document)
        return document

    def _list_again(self, document: KeyDocument) -> None:
        """Restore a key's index entries, unless it has changed."""
        # Another node may change it meanwhile: an older entry must not replace its own.
        with self.quiet():
            entry = self.store.entry(document.key_id)
            if entry is not None and entry.generation == document.generation:
                self._correct(index_of(document, entry.digest))

    def _correct(self, entry: IndexEntry) -> None:
        self.store.correct(entry)
        self.note_corrected(entry.key_id)

    def note_corrected(self, key_id: KeyId) -> None:
        """Register a corrected index row as a finding."""
        if self.tampered.note_corrected(key_id):
            self._on_correction(key_id)

    def check_listing(self, document: KeyDocument) -> None:
        """Correct the index for a key before a change."""
        with self.committing, suppress(KeyTamperedError):
            entry = self.store.entry(document.key_id)
            if entry is None or entry.generation != document.generation:
                with self.quiet():  # Unless another node has changed the key.
                    self.compare_bucket(bucket_of(document.key_id))
                return
            self._check_facts(entry, document)
            name = name_of(document)
            if name and self.store.entry(name) is None:
                self._list_again(document)

    def _read(self, key_id: KeyId, entry: IndexEntry) -> tuple[KeyDocument, str]:
        with suppress(KeyTamperedError):
            stored = self.store.get(key_id)
            digest = document_digest(stored.document)
            if digest == entry.digest:
                return self._believed(entry, stored), digest
        # Either it was tampered with, or a commit was just landing: not any more now.
        with self.quiet():
            counted = self.compare_bucket(bucket_of(key_id))
            entry = self.entry(key_id) or entry
            try:
                stored = self.store.get(key_id)
                document = self._believed(entry, stored)
            except KeyTamperedError as error:
                self.condemn(key_id, error)
                if counted is not None:
                    self.census.pin(key_id, counted.get(key_id))
                raise
        if counted is None:
            raise _doubtful()
        return document, document_digest(stored.document)

    def _believed(self, entry: IndexEntry, stored: StoredKey) -> KeyDocument:
        document = self.decode(stored)
        newest = self._documents.newest(entry.key_id)
        known = max(entry.generation, newest.generation if newest else 0)
        if document.generation < known:
            raise tampering(
                entry.key_id, "An older document was restored.", problem="older"
            )
        found = document.generation, document_digest(stored.document)
        counted = {(entry.generation, entry.digest)}
        if newest is not None and newest.generation == document.generation:
            counted.add((newest.generation, newest.digest))
        if counted != {found}:
            raise tampering(
                entry.key_id, "It is newer than its last audit record.", problem="newer"
            )
        self._check_facts(entry, document)
        return document

    def _check_facts(self, entry: IndexEntry, document: KeyDocument) -> None:
        """Correct index facts that differ from the document."""
        if _facts(entry) != _facts(index_of(document, entry.digest)):
            self._list_again(document)

    def condemn(self, key_id: KeyId, error: KeyTamperedError) -> None:
        """Disable a key with an unauthentic document; its recorded state stays."""
        self._documents.drop(key_id)
        # Before it is pinned: a check passes over pinned keys, whose finding is there.
        self.tampered.condemn(key_id, error)

    def check_bucket(self, bucket: int) -> None:
        """
        Compare the keys of a bucket with its sum, once.

        Raises:
            StoreUnavailableError: They differ, and the key at fault is not known yet.
        """
        if bucket not in self.census.unverified:
            return
        if bucket not in self.doubtful:
            if self._agreed(bucket) is not None:
                self.census.unverified.discard(bucket)
                return
            with self.quiet():
                # Unless a commit was just landing.
                if self.compare_bucket(bucket) is not None:
                    return
        raise _doubtful()

    def compare_bucket(self, bucket: int) -> Mapping[KeyId, KnownKey] | None:
        """
        Compare the keys of a bucket with its sum again, and correct their index rows.

        Callers hold `quiet`. If there is more at fault, the bucket becomes doubtful.

        Returns:
            The keys, each in its recorded state; None if the bucket is doubtful. Those
            that are pinned are as the index has them.
        """
        counted = self._agreed(bucket)
        if counted is None:
            for key in list(self.store.digests(bucket)):
                if self._has_document_of(key):
                    continue  # The scan names what else is false in this row.
                true = self.refresh(key.key_id)
                if true is not None and not _is_same(true, key):
                    self._rewritten.add(key.key_id)
            counted = self._agreed(bucket)
        if counted is None:
            self.census.unverified.add(bucket)
            self.doubtful.add(bucket)
            return None
        self.note_rewritten(counted)
        self.census.unverified.discard(bucket)
        return counted

    def _has_document_of(self, key: KeyDigest) -> bool:
        """Return whether the store holds the document that an index row names."""
        with suppress(KeyNotFoundError, KeyTamperedError):
            stored = self.store.get(key.key_id)
            return _is_same(read_index(key.key_id, stored.document), key)
        return False

    def refresh(self, key_id: KeyId) -> IndexEntry | None:
        """
        Make a key's index row from its document again; a false row is a finding.

        A row that names another document is not one yet: only the sum of the bucket
        tells which of the two is right.
        """
        try:
            before, is_false = self.store.entry(key_id), False
        except KeyTamperedError:
            before, is_false = None, True
        true = self.store.refresh(key_id)
        if before is not None and true is not None and _is_same(true, before):
            is_false = true != before
        if true is not None and is_false:
            self.note_corrected(key_id)
        return true

    def note_rewritten(self, key_ids: Collection[KeyId]) -> None:
        """Register as findings rows that were false while their bucket was doubtful."""
        for key_id in sorted(self._rewritten.intersection(key_ids)):
            if not self.census.is_pinned(key_id):
                self.note_corrected(key_id)
        self._rewritten.difference_update(key_ids)

    def _agreed(self, bucket: int) -> Mapping[KeyId, KnownKey] | None:
        """Return the keys of a bucket by the index, if they agree with its sum."""
        keys = [
            KnownKey(key.key_id, key.generation, key.digest)
            for key in self.store.digests(bucket)
        ]
        if not self.census.agrees(bucket, keys):
            return None
        return {key.key_id: key for key in keys}

    def decode(self, stored: StoredKey) -> KeyDocument:
        """
        Return the document of a stored form.

        Raises:
            KeyTamperedError: Its MAC, store or key is not what it should be.
        """
        if not stored.document:
            raise tampering(
                stored.key_id,
                "Its document is missing.",
                Integrity.MISSING,
                "missing",
            )
        return decode_document(
            stored.key_id, self.ring.store_id, stored.document, self.ring.document_mac
        )


def _doubtful() -> StoreUnavailableError:
    return StoreUnavailableError(
        "The key store changed unexpectedly; this part of it is being "
        "compared with the audit log."
    )


def _facts(entry: IndexEntry) -> tuple[object, ...]:
    return (
        entry.name,
        entry.algorithm,
        entry.state,
        entry.tags,
        entry.created_at,
        entry.operations,
        entry.owner,
        entry.usages,
    )


def _is_same(entry: IndexEntry, counted: KeyDigest | IndexEntry) -> bool:
    return (entry.generation, entry.digest) == (counted.generation, counted.digest)
