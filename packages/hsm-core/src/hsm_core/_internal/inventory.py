# SPDX-License-Identifier: MIT
"""
The keys as the HSM believes in them: an authenticated view of an untrusted store.

Everything read is checked before it is believed: documents by their MAC, blobs by their
digest in the document and by their own AAD. What fails is *tampered*, is shown as such
and serves nothing, while the other keys go on working.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hsm_core._internal.cache import BoundedCache
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.documents import (
    KeyDocument,
    decode_document,
    document_digest,
    encode_document,
    index_of,
    read_index,
)
from hsm_core._internal.materials import Materials
from hsm_core._internal.sealing import KeyRing
from hsm_core._internal.tampering import TamperedKeys, tampering
from hsm_core.errors import KeyNotFoundError, KeyTamperedError
from hsm_core.model import Integrity, KeyId, KeyState
from hsm_core.protocols import (
    Entropy,
    IndexEntry,
    KeyChange,
    KeyStore,
    StoredKey,
)

__all__ = ["Inventory", "Present"]

_MODULUS: Final = 2**256
_DOCUMENT_ENTRIES: Final = 8192
_DESTROYED: Final = KeyState.DESTROYED


@dataclass(frozen=True, slots=True)
class Present:
    """What is there of a key: generation and digest of its document, operations."""

    generation: int
    digest: str
    operations: tuple[str, ...] = ()


class Inventory:
    """
    Documents and opened keys over a `KeyStore`.

    Args:
        store: Not trusted.

        ring: Opened key ring.

        crypto: Where material becomes a usable key.

        entropy: For sealing.

        cache_entries: Opened key versions to keep.

        on_tampering: Called once for each key that is found tampered with.

    Attributes:
        unreadable: Keys whose document could not be believed at the start.
        living: Materials that were not destroyed at the start, of all other keys.
    """

    def __init__(
        self,
        store: KeyStore,
        ring: KeyRing,
        crypto: CryptoRegistry,
        entropy: Entropy,
        *,
        cache_entries: int,
        on_tampering: Callable[[KeyId, Integrity], None] = lambda *_: None,
    ) -> None:
        self.store = store
        self.ring = ring
        self._documents: BoundedCache[KeyId, tuple[str, KeyDocument]] = BoundedCache(
            _DOCUMENT_ENTRIES
        )
        self.tampered = TamperedKeys(on_tampering)
        self.materials = Materials(
            store, ring, crypto, entropy, self.tampered, cache_entries=cache_entries
        )
        self.unreadable: frozenset[KeyId] = frozenset()
        self.living: frozenset[str] = frozenset()
        self._destroyed: list[tuple[KeyId, list[int]]] = []
        self._set = 0
        self._lock = threading.Lock()

    def load(self) -> dict[KeyId, Present]:
        """
        Check every key once, compute the set digest, and rebuild the index.

        From here on the index holds what was authenticated; a key whose document can't
        be believed takes nobody's name.

        Returns:
            What is there of each key whose document can be believed.
        """
        total, whole, doubtful = 0, [], []
        present: dict[KeyId, Present] = {}
        living: set[str] = set()
        for stored in self.store.scan():
            try:
                document = self._decode(stored)
            except KeyTamperedError as error:
                self.tampered.condemn(stored.key_id, error)
                doubtful.append(_doubtful_entry(stored))
                continue
            digest = document_digest(stored.document)
            entry = index_of(document, digest)
            whole.append(entry)
            present[stored.key_id] = Present(
                document.generation, digest, entry.operations
            )
            total += self._element(document, digest)
            living.update(
                v.material_id for v in document.versions if v.state is not _DESTROYED
            )
            gone = [v.version for v in document.versions if v.state is _DESTROYED]
            if gone:
                self._destroyed.append((stored.key_id, gone))
            self.materials.check_blobs(document)
        self.store.reindex([*whole, *doubtful])
        self.unreadable = frozenset(entry.key_id for entry in doubtful)
        self.living = frozenset(living)
        self._set = total % _MODULUS
        return present

    @property
    def set_digest(self) -> str:
        """Sum of keyed hashes over (key id, generation, document digest), hex."""
        return f"{self._set:064x}"

    def count(self, key_id: KeyId, known: Present) -> None:
        """Count a key that can't be read with what the trail knows of it."""
        element = self.ring.set_element(key_id, known.generation, known.digest)
        with self._lock:
            self._set = (self._set + element) % _MODULUS

    def finish_removals(self) -> None:
        """Discard blobs that a crash kept though their versions are destroyed."""
        while self._destroyed:
            self.store.discard_blobs(*self._destroyed.pop())

    def integrity(self, key_id: KeyId) -> Integrity:
        """Return what is known of a key's integrity, without looking again."""
        return self.tampered.integrity(key_id)

    def entry(self, reference: str) -> IndexEntry | None:
        """Return the index entry of a key by id or name."""
        return self.store.entry(reference)

    def known(self, reference: str) -> KeyDocument | None:
        """Return a document that is in memory and current, or None; reads nothing."""
        entry = self.store.entry(reference)
        cached = self._documents.get(entry.key_id) if entry else None
        # A document that is newer than its entry is a commit that is just landing.
        if entry and cached and cached[1].generation >= entry.generation:
            return cached[1]
        return None

    def document(self, key_id: KeyId) -> KeyDocument:
        """
        Return a key's document, authenticated.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: It, or a blob of it, was found changed.
        """
        found = self.integrity(key_id)
        if found is not Integrity.OK:
            raise tampering(key_id, "What is stored of it was changed.", found)
        return self.known(key_id) or self.reread(key_id)

    def reread(self, key_id: KeyId) -> KeyDocument:
        """
        Read a document from the store again and compare it with what we know.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: It was changed.
        """
        # The entry comes first: a commit in between can only bring a newer document.
        entry = self.store.entry(key_id)
        if entry is None:
            raise KeyNotFoundError
        try:
            stored = self.store.get(key_id)
            document = self._decode(stored)
            if document.generation < entry.generation:
                raise tampering(key_id, "An older document was put back.")
        except KeyTamperedError as error:
            self.tampered.condemn(key_id, error)
            raise
        self._documents.put(key_id, (document_digest(stored.document), document))
        return document

    def inspect(
        self, key_id: KeyId, *, with_blobs: bool = False
    ) -> tuple[KeyDocument | None, Integrity]:
        """
        Look at what is stored of a key, and return what can be believed of it.

        Raises:
            KeyNotFoundError: There is no such key.
        """
        try:
            document = self.reread(key_id)
        except KeyTamperedError:
            return None, self.integrity(key_id)
        if with_blobs:
            self.materials.check_blobs(document)
        return document, self.integrity(key_id)

    def digest_of(self, key_id: KeyId) -> str:
        """Return the digest of the document that `document` would return."""
        document = self.document(key_id)
        cached = self._documents.get(key_id)
        if cached and cached[1] is document:
            return cached[0]
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
    ) -> str:
        """
        Commit one change of one key, and return the digest of the new document.

        Callers hold the lock of the key, and the one that orders outcomes.

        Args:
            before: The document that was changed; None for a new key.

            after: The new document.

            stored: Its stored form.

            operation_id: Must be new.

            blobs: Sealed blobs of new versions.

        Raises:
            HSMError: See `KeyStore.commit`.
        """
        digest = document_digest(stored)
        removed = 0
        if before is not None:
            removed = self._element(before, self.digest_of(before.key_id))
        self.store.commit(
            KeyChange(
                entry=index_of(after, digest),
                document=stored,
                expected_generation=before.generation if before else 0,
                operation_id=operation_id,
                blobs=blobs,
                removed_blobs=_destroyed_by(before, after),
            )
        )
        with self._lock:
            added = self._element(after, digest)
            self._set = (self._set - removed + added) % _MODULUS
        if before is not None:
            self.materials.forget(before, after)
        self._documents.put(after.key_id, (digest, after))
        return digest

    def _decode(self, stored: StoredKey) -> KeyDocument:
        if not stored.document:
            raise tampering(
                stored.key_id, "Its document is missing.", Integrity.MISSING
            )
        return decode_document(
            stored.key_id, self.ring.store_id, stored.document, self.ring.document_mac
        )

    def _element(self, document: KeyDocument, digest: str) -> int:
        return self.ring.set_element(document.key_id, document.generation, digest)


def _destroyed_by(before: KeyDocument | None, after: KeyDocument) -> tuple[int, ...]:
    return tuple(
        version.version
        for version in (before.versions if before else ())
        if version.state is not _DESTROYED
        and after.versions[version.version - 1].state is _DESTROYED
    )


def _doubtful_entry(stored: StoredKey) -> IndexEntry:
    """Return what a key whose document can't be believed is found and listed by."""
    claimed = read_index(stored.key_id, stored.document)
    return IndexEntry(
        key_id=stored.key_id,
        created_at=claimed.created_at,
        name=claimed.name,
        algorithm="",
        state="",
        tags=frozenset(),
        generation=0,
    )
