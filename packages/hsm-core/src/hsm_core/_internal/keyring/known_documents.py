# SPDX-License-Identifier: MIT
"""Authenticated documents in memory, each with its row of a listing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from hsm_core._internal.keyring.documents import KeyDocument, key_info
from hsm_core._internal.lib.cache import BoundedCache
from hsm_core.model import Integrity, KeyId, KeyInfo

_ENTRIES: Final = 8192
_NEWEST: Final = 65536


class Newest(msgspec.Struct, frozen=True):
    """Generation and digest of the document that a change has left of a key."""

    generation: int
    digest: str


class KnownDocument(msgspec.Struct):
    """
    Document as it was read from the store, or committed.

    Attributes:
        digest: SHA-256 of its stored form, hex.
    """

    digest: str
    document: KeyDocument
    _row: KeyInfo | None = None

    def row(self, integrity: Integrity) -> KeyInfo:
        """Return the key's metadata for a listing; an intact key's is made once."""
        if integrity is not Integrity.OK:
            return key_info(self.document, integrity)
        if self._row is None:
            self._row = key_info(self.document, integrity)
        return self._row


class KnownDocuments:
    """
    Most recently used documents, the newest of each key. Thread-safe.

    Of keys that other nodes have changed it knows the newest generation, too, and keeps
    no older document.
    """

    def __init__(self) -> None:
        self._newest: BoundedCache[KeyId, Newest] = BoundedCache(_NEWEST)
        self._found: BoundedCache[KeyId, KnownDocument] = BoundedCache(_ENTRIES)
        self._lock = threading.Lock()

    def get(self, key_id: KeyId) -> KnownDocument | None:
        """Return a key's document, or None."""
        return self._found.get(key_id)

    def get_all(self, key_ids: Sequence[KeyId]) -> list[KnownDocument | None]:
        """Return the document of each key, or None."""
        return self._found.get_all(key_ids)

    def put(self, digest: str, document: KeyDocument) -> KnownDocument:
        """
        Take a document in, and return it, or the newer one that is there.

        A reader may arrive with the document that a commit has just replaced.
        """
        with self._lock:
            newest = self._newest.get(document.key_id)
            if newest is not None and document.generation < newest.generation:
                return KnownDocument(digest, document)
            known = self._found.get(document.key_id)
            if known is None or known.document.generation <= document.generation:
                known = KnownDocument(digest, document)
                self._found.put(document.key_id, known)
            return known

    def drop(self, key_id: KeyId) -> None:
        """Forget a key's document."""
        with self._lock:
            self._found.drop(key_id)

    def supersede(self, key_id: KeyId, newest: Newest | None) -> None:
        """Forget a key's document, unless it is the newest; None if the key is gone."""
        with self._lock:
            known = self._found.get(key_id)
            if newest is None:
                self._newest.drop(key_id)
            else:
                self._newest.put(key_id, newest)
            if newest is None or (known and known.digest != newest.digest):
                self._found.drop(key_id)

    def newest(self, key_id: KeyId) -> Newest | None:
        """Return what the last change of a key has left; None if that is not known."""
        return self._newest.get(key_id)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._found.drop_where(lambda _: True)
            self._newest.drop_where(lambda _: True)
