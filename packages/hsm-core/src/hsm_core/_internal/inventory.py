# SPDX-License-Identifier: MIT
"""
The keys as the HSM believes in them: an authenticated view of an untrusted store.

Everything read is checked before it is believed: documents by their MAC, blobs by their
digest in the document and by their own AAD. What fails is *tampered*, is shown as such
and serves nothing, while the other keys go on working.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from hsm_core._internal.documents import (
    KeyDocument,
    VersionDocument,
    decode_document,
    document_digest,
    encode_document,
    index_of,
)
from hsm_core._internal.sealing import BlobContext, KeyRing
from hsm_core.algorithms import Algorithm
from hsm_core.errors import KeyStateError, KeyTamperedError
from hsm_core.model import Integrity, KeyId, KeyState
from hsm_core.protocols import (
    Entropy,
    IndexEntry,
    KeyChange,
    KeyHandle,
    KeyStore,
    StoredKey,
)

if TYPE_CHECKING:
    from hsm_core._internal.crypto.registry import CryptoRegistry

__all__ = ["Inventory"]

_MODULUS: Final = 2**256
_DOCUMENT_ENTRIES: Final = 8192
_OPENED: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED})

K = TypeVar("K")
V = TypeVar("V")


class _Cache(Generic[K, V]):
    """A bounded map that forgets what was used least lately."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            value = self._items.get(key)
            if value is not None:
                self._items.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self._limit:
                self._items.popitem(last=False)

    def drop(self, key: K) -> None:
        with self._lock:
            self._items.pop(key, None)


class Inventory:
    """
    Documents and opened keys over a `KeyStore`.

    Args:
        store: Not trusted.

        ring: Opened key ring.

        crypto: Where material becomes a usable key.

        entropy: For sealing.

        cache_entries: Opened key versions to keep.
    """

    def __init__(
        self,
        store: KeyStore,
        ring: KeyRing,
        crypto: CryptoRegistry,
        entropy: Entropy,
        *,
        cache_entries: int,
    ) -> None:
        self.store = store
        self.ring = ring
        self._crypto = crypto
        self._entropy = entropy
        self._documents: _Cache[KeyId, tuple[str, KeyDocument]] = _Cache(
            _DOCUMENT_ENTRIES
        )
        self._handles: _Cache[tuple[KeyId, str], KeyHandle] = _Cache(cache_entries)
        self._tampered: dict[KeyId, Integrity] = {}
        self._set = 0
        self._lock = threading.Lock()

    def load(self) -> None:
        """Check every key once, and compute the set digest."""
        total = 0
        for stored in self.store.scan():
            try:
                document = self._decode(stored)
                total += self._element(document, stored.document)
                self._check_blobs(document)
            except KeyTamperedError as error:
                self._condemn(stored.key_id, error)
        self._set = total % _MODULUS

    @property
    def set_digest(self) -> str:
        """Sum of keyed hashes over (key id, generation, document digest), hex."""
        return f"{self._set:064x}"

    @property
    def tampered(self) -> Mapping[KeyId, Integrity]:
        """Keys found to be tampered with."""
        return dict(self._tampered)

    def integrity(self, key_id: KeyId) -> Integrity:
        """Return what is known of a key's integrity, without looking again."""
        return self._tampered.get(key_id, Integrity.OK)

    def entry(self, reference: str) -> IndexEntry | None:
        """Return the index entry of a key by id or name."""
        return self.store.entry(reference)

    def document(self, key_id: KeyId) -> KeyDocument:
        """
        Return a key's document, authenticated.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: It, or a blob of it, was found changed.
        """
        if key_id in self._tampered:
            raise self._tampering(key_id, "The stored form was changed.")
        entry = self.store.entry(key_id)
        cached = self._documents.get(key_id)
        if cached and entry and cached[1].generation == entry.generation:
            return cached[1]
        return self.reread(key_id)

    def reread(self, key_id: KeyId) -> KeyDocument:
        """
        Read a document from the store again and compare it with what we know.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: It was changed.
        """
        try:
            stored = self.store.get(key_id)
            document = self._decode(stored)
            entry = self.store.entry(key_id)
            if entry is not None and document.generation < entry.generation:
                raise self._tampering(key_id, "An older document was put back.")
        except KeyTamperedError as error:
            self._condemn(key_id, error)
            raise
        self._documents.put(key_id, (document_digest(stored.document), document))
        return document

    def digest_of(self, key_id: KeyId) -> str:
        """Return the digest of the document that `document` would return."""
        document = self.document(key_id)
        cached = self._documents.get(key_id)
        if cached and cached[1] is document:
            return cached[0]
        return document_digest(self.encode(document))

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
        if with_blobs and self.integrity(key_id) is Integrity.OK:
            try:
                self._check_blobs(document)
            except KeyTamperedError as error:
                self._condemn(key_id, error)
        return document, self.integrity(key_id)

    def blob_integrity(
        self, document: KeyDocument, version: VersionDocument
    ) -> Integrity:
        """Compare the sealed blob of a version with its digest in the document."""
        if version.state is KeyState.DESTROYED:
            return Integrity.OK
        blob = self.store.get_blob(document.key_id, version.version)
        if blob is None:
            return Integrity.MISSING
        digest = hashlib.sha256(blob).hexdigest()
        return Integrity.OK if digest == version.blob_sha256 else Integrity.TAMPERED

    def handle(self, document: KeyDocument, version: VersionDocument) -> KeyHandle:
        """
        Return the opened key of a version.

        Raises:
            KeyTamperedError: The blob is missing, changed, or another's.
            KeyStateError: The material was destroyed.
        """
        cached = self._handles.get((document.key_id, version.blob_sha256))
        if cached is not None:
            return cached
        material = self.open_material(document, version)
        handle = self._crypto.load(Algorithm(document.algorithm), material)
        self._handles.put((document.key_id, version.blob_sha256), handle)
        return handle

    def open_material(self, document: KeyDocument, version: VersionDocument) -> bytes:
        """Return the unsealed material of a version; errors as of `handle`."""
        if any(t.material_id == version.material_id for t in document.tombstones):
            raise KeyStateError("The material of this version was destroyed.")
        key_id = document.key_id
        try:
            found = self.blob_integrity(document, version)
            if found is not Integrity.OK:
                raise self._tampering(
                    key_id,
                    f"The sealed blob of version {version.version} is {found}.",
                    found,
                )
            blob = self.store.get_blob(key_id, version.version) or b""
            return self.ring.open_material(blob, context=_context(document, version))
        except KeyTamperedError as error:
            self._condemn(key_id, error)
            raise

    def seal(
        self, document: KeyDocument, version: VersionDocument, material: bytes
    ) -> bytes:
        """Return the sealed blob of a version."""
        return self.ring.seal_material(
            material, context=_context(document, version), entropy=self._entropy
        )

    def encode(self, document: KeyDocument) -> bytes:
        """Return the stored form of a document."""
        return encode_document(document, self.ring.document_mac)

    def commit(
        self,
        before: KeyDocument | None,
        after: KeyDocument,
        operation_id: str,
        blobs: Mapping[int, bytes],
    ) -> str:
        """
        Commit one change of one key, and return the digest of the new document.

        Callers hold the lock of the key, and the one that orders outcomes.

        Raises:
            HSMError: See `KeyStore.commit`.
        """
        stored = self.encode(after)
        gone = tuple(
            v.version
            for v in after.versions
            if v.state is KeyState.DESTROYED
            and (before is None or before.versions[v.version - 1].blob_sha256)
        )
        removed = self._known_element(before) if before is not None else 0
        self.store.commit(
            KeyChange(
                entry=index_of(after),
                document=stored,
                expected_generation=before.generation if before else 0,
                operation_id=operation_id,
                blobs=blobs,
                removed_blobs=gone,
            )
        )
        digest = document_digest(stored)
        added = self.ring.set_element(after.key_id, after.generation, digest)
        with self._lock:
            self._set = (self._set - removed + added) % _MODULUS
        for version in before.versions if before else ():
            still = after.versions[version.version - 1]
            if still.state not in _OPENED:
                self._handles.drop((after.key_id, version.blob_sha256))
        self._documents.put(after.key_id, (digest, after))
        return digest

    def _decode(self, stored: StoredKey) -> KeyDocument:
        if not stored.document:
            raise self._tampering(
                stored.key_id, "Its document is missing.", Integrity.MISSING
            )
        return decode_document(
            stored.key_id, self.ring.store_id, stored.document, self.ring.document_mac
        )

    def _check_blobs(self, document: KeyDocument) -> None:
        for version in document.versions:
            found = self.blob_integrity(document, version)
            if found is not Integrity.OK:
                raise self._tampering(
                    document.key_id,
                    f"The sealed blob of version {version.version} is {found}.",
                    found,
                )

    def _element(self, document: KeyDocument, stored: bytes) -> int:
        return self.ring.set_element(
            document.key_id, document.generation, document_digest(stored)
        )

    def _known_element(self, document: KeyDocument) -> int:
        digest = self.digest_of(document.key_id)
        return self.ring.set_element(document.key_id, document.generation, digest)

    def _condemn(self, key_id: KeyId, error: KeyTamperedError) -> None:
        missing = error.facts.get("integrity") == Integrity.MISSING.value
        kind = Integrity.MISSING if missing else Integrity.TAMPERED
        self._tampered.setdefault(key_id, kind)
        self._documents.drop(key_id)

    def _tampering(
        self, key_id: KeyId, reason: str, found: Integrity = Integrity.TAMPERED
    ) -> KeyTamperedError:
        return KeyTamperedError(
            f"The stored key {key_id} was tampered with: {reason}",
            key_id=key_id,
            integrity=found.value,
        )


def _context(document: KeyDocument, version: VersionDocument) -> BlobContext:
    return BlobContext(
        key_id=document.key_id,
        version=version.version,
        material_id=version.material_id,
        algorithm=document.algorithm,
        usages=document.usages,
    )
