# SPDX-License-Identifier: MIT
"""Sealed material: blobs are checked, opened and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Final

from hsm_core._internal.crypto.guard import GuardedHandle
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.keyring.documents import KeyDocument, VersionDocument
from hsm_core._internal.keyring.key_ring import BlobContext, KeyRing
from hsm_core._internal.keyring.stored_keys import TamperedKeys, tampering
from hsm_core._internal.lib.cache import BoundedCache
from hsm_core.algorithms import Algorithm
from hsm_core.errors import GenerationConflictError, KeyStateError, KeyTamperedError
from hsm_core.model import Integrity, KeyId, KeyState
from hsm_core.operations import KeyCacheStatus
from hsm_core.protocols import Entropy, KeyHandle, KeyStore

_OPENED: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED})


class Materials:
    """
    Seals and opens the material of key versions.

    Args:
        store: Not trusted.

        ring: Opened key ring.

        crypto: Loads material as usable keys.

        entropy: For sealing.

        tampered: Register of keys that fail integrity checks.

        cache_entries: Number of opened key versions to cache.
    """

    def __init__(
        self,
        store: KeyStore,
        ring: KeyRing,
        crypto: CryptoRegistry,
        entropy: Entropy,
        tampered: TamperedKeys,
        *,
        cache_entries: int,
    ) -> None:
        self._store = store
        self._ring = ring
        self._crypto = crypto
        self._entropy = entropy
        self._tampered = tampered
        self._handles: BoundedCache[tuple[str, str], GuardedHandle] = BoundedCache(
            cache_entries
        )
        self._public_handles: BoundedCache[bytes, KeyHandle] = BoundedCache(
            cache_entries
        )

    @property
    def opened(self) -> KeyCacheStatus:
        """Cache hits and misses of opened keys."""
        return self._handles.counts

    def check_blobs(self, document: KeyDocument) -> None:
        """Check the digests of a key's sealed blobs; disable the key if one differs."""
        error = self.find_changed(document)
        if error is not None and not self._has_moved(document):
            self._tampered.condemn(document.key_id, error)

    def find_changed(self, document: KeyDocument) -> KeyTamperedError | None:
        """Return the fault of a key's sealed blobs, or None."""
        for version in document.versions:
            found = self.blob_integrity(document, version)
            if found is not Integrity.OK:
                return _blob_tampering(document, version, found)
        return None

    def returned_blobs(self, document: KeyDocument) -> list[int]:
        """Return the destroyed versions of a key that have a sealed blob again."""
        return [
            version.version
            for version in document.versions
            if version.state is KeyState.DESTROYED
            and self._store.get_blob(document.key_id, version.version) is not None
        ]

    def blob_integrity(
        self, document: KeyDocument, version: VersionDocument
    ) -> Integrity:
        """Compare the sealed blob of a version with its digest in the document."""
        if version.state is KeyState.DESTROYED:
            return Integrity.OK
        blob = self._store.get_blob(document.key_id, version.version)
        return _judge(blob, version)

    def handle(self, document: KeyDocument, version: VersionDocument) -> KeyHandle:
        """
        Return the opened key of a version.

        Raises:
            KeyTamperedError: The blob is missing, changed, or another's.
            GenerationConflictError: The same, for the key has changed meanwhile.
            KeyStateError: The material was destroyed.
        """
        slot = document.key_id, version.blob_sha256
        cached = self._handles.get(slot)
        if cached is not None:
            return cached
        material = self.open_material(document, version)
        handle = self._crypto.load(Algorithm(document.algorithm), material)
        self._handles.put(slot, handle)
        if self._has_moved(document):
            # The version may have been revoked or destroyed while it was opened.
            self._handles.drop(slot)
        return handle

    def open_versions(self, key_id: KeyId) -> list[str]:
        """Return the digests of the sealed blobs of a key that are opened."""
        return [digest for owner, digest in self._handles.keys() if owner == key_id]

    def opener(
        self, document: KeyDocument, version: VersionDocument
    ) -> Callable[[], GuardedHandle | None]:
        """Return what gives the key of a version while it is open, and keeps none."""
        return partial(self._handles.get, (document.key_id, version.blob_sha256))

    def public_handle(
        self, document: KeyDocument, version: VersionDocument
    ) -> KeyHandle:
        """Return the public half of a version, from the authenticated document."""
        cached = self._public_handles.get(version.public_der)
        if cached is not None:
            return cached
        algorithm = Algorithm(document.algorithm)
        handle = self._crypto.load_public(algorithm, version.public_der)
        self._public_handles.put(version.public_der, handle)
        return handle

    def open_material(self, document: KeyDocument, version: VersionDocument) -> bytes:
        """Return the unsealed material of a version; errors as of `handle`."""
        if any(t.material_id == version.material_id for t in document.tombstones):
            raise KeyStateError("The material of this version was destroyed.")
        blob = self._store.get_blob(document.key_id, version.version)
        found = _judge(blob, version)
        try:
            if blob is None or found is not Integrity.OK:
                raise _blob_tampering(document, version, found)
            return self._ring.open_material(blob, context=_context(document, version))
        except KeyTamperedError as error:
            if self._has_moved(document):
                # A change has removed the blob: the document is old, nothing altered.
                raise GenerationConflictError from error
            self._tampered.condemn(document.key_id, error)
            raise

    def seal(
        self, document: KeyDocument, version: VersionDocument, material: bytes
    ) -> bytes:
        """Return the sealed blob of a version."""
        return self._ring.seal_material(
            material, context=_context(document, version), entropy=self._entropy
        )

    def forget(self, before: KeyDocument, after: KeyDocument) -> None:
        """Drop the opened keys of versions that may no longer be used."""
        for version in before.versions:
            if after.versions[version.version - 1].state not in _OPENED:
                self._handles.drop((after.key_id, version.blob_sha256))

    def forget_key(self, key_id: KeyId) -> None:
        """Drop the opened keys of all versions of a key."""
        self._handles.drop_where(lambda slot: slot[0] == key_id)

    def forget_all(self) -> None:
        """Drop all opened keys."""
        self._handles.drop_where(lambda _: True)

    def _has_moved(self, document: KeyDocument) -> bool:
        entry = self._store.entry(document.key_id)
        return entry is not None and entry.generation > document.generation


def _judge(blob: bytes | None, version: VersionDocument) -> Integrity:
    if blob is None:
        return Integrity.MISSING
    digest = hashlib.sha256(blob).hexdigest()
    return Integrity.OK if digest == version.blob_sha256 else Integrity.TAMPERED


def _blob_tampering(
    document: KeyDocument, version: VersionDocument, found: Integrity
) -> KeyTamperedError:
    return tampering(
        document.key_id,
        f"The sealed blob of version {version.version} is {found}.",
        found,
        "blob",
    )


def _context(document: KeyDocument, version: VersionDocument) -> BlobContext:
    return BlobContext(
        key_id=document.key_id,
        version=version.version,
        material_id=version.material_id,
        algorithm=document.algorithm,
        usages=document.usages,
    )
