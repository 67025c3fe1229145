# SPDX-License-Identifier: MIT
"""
Key repository: an authenticated view of an untrusted key store.

Everything read is authenticated: documents by their MAC and the set digest, blobs by
their digest in the document and by their own AAD. A key that fails is reported as
*tampered* and disabled; the other keys keep working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.keyring.documents import (
    KeyDocument,
    document_digest,
    encode_document,
    index_of,
    read_index,
)
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.known_documents import KnownDocument, Newest
from hsm_core._internal.keyring.materials import Materials
from hsm_core._internal.keyring.names import name_of
from hsm_core._internal.keyring.set_digest import Step, Sums
from hsm_core._internal.keyring.stored_keys import (
    AuthenticatedReader,
    Finding,
    StoreLock,
)
from hsm_core._internal.keyring.use_counters import NoRoomError
from hsm_core.errors import KeyTamperedError, StoreUnavailableError
from hsm_core.model import Integrity, KeyId, KeyState
from hsm_core.protocols import (
    AccountChange,
    Entropy,
    IndexEntry,
    KeyChange,
    KeyStore,
    KnownKey,
    StoredKey,
)

_DESTROYED: Final = KeyState.DESTROYED


class Present(msgspec.Struct, frozen=True):
    """Stored state of a key: generation and digest of its document, operations."""

    key_id: KeyId
    generation: int
    digest: str
    operations: tuple[str, ...] = ()


class Loaded(msgspec.Struct, frozen=True):
    """
    Result of reading all stored keys.

    Attributes:
        present: Stored state of each key with an authentic document.
        unreadable: Fault of the document of each other key.
        blobs: Fault of the blobs of each key with an authentic document.
    """

    present: dict[KeyId, Present]
    unreadable: dict[KeyId, Integrity]
    blobs: dict[KeyId, KeyTamperedError]


class KeyRepository(AuthenticatedReader):
    """
    Documents and opened keys over a `KeyStore`.

    Args:
        store: Not trusted.

        ring: Opened key ring.

        crypto: Where material becomes a usable key.

        entropy: For sealing.

        cache_entries: Opened key versions to keep.

        on_tampering: Called once for each key that is found tampered with.

        on_correction: Called once for each key of which the index said something false.

    Attributes:
        materials: Their sealed blobs, and what was opened of them.
        lock: Whether the whole HSM is locked.
    """

    def __init__(
        self,
        store: KeyStore,
        ring: KeyRing,
        crypto: CryptoRegistry,
        entropy: Entropy,
        *,
        cache_entries: int,
        on_tampering: Callable[[KeyId, Finding], None] = lambda *_: None,
        on_correction: Callable[[KeyId], None] = lambda _: None,
    ) -> None:
        super().__init__(store, ring, on_tampering, on_correction)
        self.materials = Materials(
            store, ring, crypto, entropy, self.tampered, cache_entries=cache_entries
        )
        self.lock = StoreLock()
        self.beside: Callable[[], str] = str

    def load(self) -> Loaded:
        """
        Check every document and blob, and rebuild the index from authentic documents.

        A key with an unauthentic document claims no name.
        """
        whole, doubtful = [], []
        present: dict[KeyId, Present] = {}
        unreadable: dict[KeyId, Integrity] = {}
        blobs: dict[KeyId, KeyTamperedError] = {}
        for stored in self.store.scan():
            digest = document_digest(stored.document)
            try:
                document = self.decode(stored)
            except KeyTamperedError as error:
                missing = error.facts.get("integrity") == Integrity.MISSING.value
                found = Integrity.MISSING if missing else Integrity.TAMPERED
                unreadable[stored.key_id] = found
                doubtful.append(_doubtful_entry(stored, digest))
                continue
            entry = index_of(document, digest)
            whole.append(entry)
            present[stored.key_id] = Present(
                stored.key_id, document.generation, digest, entry.operations
            )
            changed = self.materials.find_changed(document)
            if changed is not None:
                blobs[stored.key_id] = changed
        self.store.reindex([*whole, *doubtful])
        return Loaded(present, unreadable, blobs)

    @property
    def set_digest(self) -> str:
        """
        Sum of keyed hashes over (key id, generation, document digest), hex.

        Where there are approvals, the same over all of them follows.
        """
        return self.census.set_digest + self.beside()

    def integrity(self, key_id: KeyId) -> Integrity:
        """Return a key's known integrity, without checking again."""
        return self.tampered.integrity(key_id)

    def inspect(
        self, key_id: KeyId, *, with_blobs: bool = False
    ) -> tuple[KeyDocument | None, Integrity]:
        """
        Read a key from the store, and return its document and integrity.

        Raises:
            KeyNotFoundError: There is no such key.
            StoreUnavailableError: It can't be read, or compared, now.
        """
        if self.census.is_pinned(key_id):
            return None, self.integrity(key_id)
        try:
            document = self.reread(key_id).document
        except KeyTamperedError:
            return None, self.integrity(key_id)
        if with_blobs:
            self._check_blobs(document)
        return document, self.integrity(key_id)

    def glance(
        self, key_ids: Sequence[KeyId], *, at_once: bool = False
    ) -> list[KnownDocument | None]:
        """
        Return documents from memory, or from the store those that are not there.

        None for a key whose document is not authentic; other errors as of `inspect`.

        Raises:
            NoRoomError: With *at_once*, one is not in memory.
        """
        known = self.vouched(key_ids)
        if None in known:
            if at_once:
                raise NoRoomError
            missing = [n for n, found in enumerate(known) if found is None]
            read = self.side_by_side(
                self._read_authentic, map(key_ids.__getitem__, missing)
            )
            for number, found in zip(missing, read, strict=True):
                known[number] = found
        return known

    def _read_authentic(self, key_id: KeyId) -> KnownDocument | None:
        if not self.census.is_pinned(key_id):
            with suppress(KeyTamperedError):
                return self.reread(key_id)
        return None

    def _check_blobs(self, document: KeyDocument) -> None:
        found = self.side_by_side(
            partial(self.materials.blob_integrity, document), document.versions
        )
        if any(integrity is not Integrity.OK for integrity in found):
            self.materials.check_blobs(document)

    def digest_of(self, key_id: KeyId) -> str:
        """Return the digest of the document that `document` would return."""
        document = self.document(key_id)
        cached = self._documents.get(key_id)
        if cached and cached.document is document:
            return cached.digest
        return document_digest(self.encode(document))

    def encode(self, document: KeyDocument) -> bytes:
        """Return the stored form of a document."""
        return encode_document(document, self.ring.document_mac)

    def commit(
        self,
        before: KeyDocument | None,
        after: KeyDocument,
        stored: bytes,
        operation_id: str,
        blobs: Mapping[int, bytes],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Commit one change of one key.

        Callers hold the lock of the key, and `committing`.

        Args:
            before: The document that was changed; None for a new key.

            after: The new document.

            stored: Its stored form.

            operation_id: Must be new.

            blobs: Sealed blobs of new versions.

            check: Called again while no other node changes anything; what it raises
                refuses the change.

        Raises:
            NameTakenError: Another key has its name, whatever the index says.
            KeyTamperedError: A key whose name is unknown may have it.
            HSMError: See `KeyStore.commit`.
        """
        digest = document_digest(stored)
        if before is not None:
            self.check_listing(before)
        self._check_name(before, after)
        counted = self._counted(before)
        known = KnownKey(after.key_id, after.generation, digest)
        step: Step | None = None

        def account() -> AccountChange:
            nonlocal step
            if self.feed is not None:
                check()
                self._check_name(before, after)
            step = self.census.step(counted, known)
            return step.change

        self.store.commit(
            KeyChange(
                entry=index_of(after, digest),
                document=stored,
                expected_generation=before.generation if before else 0,
                expected_digest=counted.digest if counted else "",
                operation_id=operation_id,
                blobs=blobs,
                removed_blobs=destroyed_by(before, after),
                account=account,
            )
        )
        if self.feed is None:
            # A store that keeps no account has not called it.
            self.census.make(step or self.census.step(counted, known))
        self.adopt(before, after, digest)
        if destroyed_by(before, after):
            with suppress(StoreUnavailableError):  # The change is made, whatever else.
                self.discard_blobs(after)

    def _check_name(self, before: KeyDocument | None, after: KeyDocument) -> None:
        name = name_of(after)
        if name and (before is None or name != name_of(before)):
            self.names.check(name, after.key_id)

    def discard_blobs(self, document: KeyDocument) -> None:
        """
        Delete the sealed blobs of destroyed versions; a failure is a finding.

        Raises:
            StoreUnavailableError: The store is unavailable.
        """
        gone = self.materials.returned_blobs(document)
        self.discard_versions(document.key_id, gone)

    def discard_versions(self, key_id: KeyId, versions: Sequence[int]) -> None:
        """Delete the sealed blobs of versions; see `discard_blobs`."""
        is_kept = False
        try:
            if versions:
                self.store.discard_blobs(key_id, versions)
        except StoreUnavailableError:
            if not self.store.available:
                raise
            is_kept = True
        self.tampered.note_kept(key_id, is_kept=is_kept)

    def _counted(self, before: KeyDocument | None) -> KnownKey | None:
        if before is None:
            return None
        digest = self.digest_of(before.key_id)
        return KnownKey(before.key_id, before.generation, digest)

    def adopt(
        self, before: KeyDocument | None, after: KeyDocument, digest: str
    ) -> None:
        """Cache a committed document; drop the opened keys that it ends."""
        if before is not None:
            self.materials.forget(before, after)
        self._documents.put(digest, after)
        self.names.note(after.key_id, after)
        self.tampered.cells.of(after.key_id).bump()

    # Changes of other nodes

    def follow(
        self, key_id: KeyId, before: KnownKey | None, after: KnownKey | None
    ) -> None:
        """Take over a change of a key that is committed, whichever node made it."""
        self.census.replace(before, after)
        if self.census.is_pinned(key_id):
            # Who changed it has read it, or accepted it as it is stored.
            self.census.unpin(key_id)
            self.tampered.release(key_id)
        newest = Newest(after.generation, after.digest) if after else None
        self._documents.supersede(key_id, newest)
        self.materials.forget_key(key_id)
        self.names.forget(key_id)
        self.tampered.cells.of(key_id).bump()

    def follow_all(self, sums: Sums) -> None:
        """Start again from the account of a store that others have changed."""
        self.census.adopt(sums, verified=False)
        self.forget_all()

    def forget_all(self) -> None:
        """Read everything from the store again, and let no decision before count."""
        self._documents.clear()
        self.materials.forget_all()
        self.names.doubt()
        self.lock.changes.bump()

    def has_newer(self, documents: Iterable[KeyDocument]) -> bool:
        """Return whether a change that is known here has replaced a document."""
        newest = ((d, self._documents.newest(d.key_id)) for d in documents)
        return any(found and found.generation > d.generation for d, found in newest)

    def cached(self, key_id: KeyId) -> KeyDocument | None:
        """Return the cached document, current or not."""
        cached = self._documents.get(key_id)
        return cached.document if cached else None

    def accept(self, key_id: KeyId, document: KeyDocument | None) -> None:
        """Accept a key as it is stored, None if it is gone; update the set digest."""
        self._documents.drop(key_id)
        self.names.note(key_id, document)
        self.census.unpin(key_id)
        self.tampered.release(key_id)


def destroyed_by(before: KeyDocument | None, after: KeyDocument) -> tuple[int, ...]:
    """Return the versions that a change of a key destroys."""
    return tuple(
        version.version
        for version in (before.versions if before else ())
        if version.state is not _DESTROYED
        and after.versions[version.version - 1].state is _DESTROYED
    )


def _doubtful_entry(stored: StoredKey, digest: str) -> IndexEntry:
    """Return the index entry for a key with an unauthentic document."""
    claimed = read_index(stored.key_id, stored.document)
    return IndexEntry(
        key_id=stored.key_id,
        created_at=claimed.created_at,
        name=claimed.name,
        algorithm="",
        state="",
        tags=frozenset(),
        generation=0,
        digest=digest,
    )
