# SPDX-License-Identifier: MIT
"""
Known documents of a vault: an index over them, and the tag of each.

The tag belongs to the very object that the index entry was read from, so that a change
prepared on that entry replaces that object or none.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from hsm_core._internal.keyring.documents import read_index
from hsm_core._internal.stores.index import KeyIndex
from hsm_core._internal.stores.remote import names
from hsm_core._internal.stores.remote.access import VaultAccess
from hsm_core._internal.stores.remote.documents import (
    FoundDocument,
    RemoteDocuments,
)
from hsm_core.errors import GenerationConflictError, VaultConflictError
from hsm_core.model import KeyId
from hsm_core.protocols import ABSENT, Entropy, IndexEntry, KeyChange

_COMMIT_TRIES: Final = 3


class KnownDocuments:
    """
    Documents of a vault, and what is known of them. Callers let one thread write.

    Args:
        vault: Where they lie.

        entropy: Makes each writing of a document one of its own.
    """

    def __init__(self, vault: VaultAccess, entropy: Entropy) -> None:
        self._vault = vault
        self._documents = RemoteDocuments(vault, entropy)
        self._index = KeyIndex()
        self._tags: dict[KeyId, str] = {}
        self._reading = threading.Lock()

    @contextmanager
    def index(self) -> Iterator[KeyIndex]:
        """Give the index for a short time, in which nobody else has it."""
        with self._reading:
            yield self._index

    def key_ids(self) -> list[KeyId]:
        """Return the ids of all known keys, oldest key first."""
        with self._reading:
            return self._index.key_ids()

    def read(self, key_id: KeyId) -> FoundDocument:
        """Return what lies in the vault for a key."""
        return self._documents.read(key_id)

    def read_all(
        self, known: Collection[KeyId]
    ) -> Iterator[tuple[KeyId, FoundDocument]]:
        """Return what lies in the vault for all keys, known to us or listed there."""
        listed = names.keys_among(self._vault.list_all(names.KEYS))
        return self._documents.read_many(sorted(listed.union(known)))

    def load(self) -> None:
        """
        Read everything, and mark what is aborted.

        Raises:
            StoreUnavailableError: It can't be; what was known is known still.
        """
        aborted = [
            name.removeprefix(names.ABORTED)
            for name in self._vault.list_all(names.ABORTED)
        ]
        entries, tags = [], {}
        for key_id, found in self.read_all(self.key_ids()):
            tags[key_id] = found.tag
            if found.document is not None:
                entries.append(read_index(key_id, found.document))
        with self._reading:
            for operation_id in aborted:
                self._index.abort(operation_id)
            self._index.replace(entries)
            self._tags = tags

    def adopt(self, key_id: KeyId, found: FoundDocument) -> IndexEntry | None:
        """Take over what was found; a known key without a document stays known."""
        with self._reading:
            self._tags[key_id] = found.tag
            if found.document is None:
                return None
            entry = read_index(key_id, found.document)
            self._index.put(entry)
            return entry

    def fence(self, key_id: KeyId, *, epoch: int) -> FoundDocument:
        """
        Let no earlier write of a document arrive any more, and take over what is there.

        Args:
            key_id: Its key.

            epoch: Of the present tenure.

        Raises:
            StoreUnavailableError: That could not be brought about.
        """
        found = self._documents.fence(key_id, epoch=epoch)
        self.adopt(key_id, found)
        return found

    def commit(self, change: KeyChange, *, epoch: int) -> None:
        """
        Replace a document, where it is the one that the change was prepared on.

        Args:
            change: Checked against the index.

            epoch: Of the present tenure.

        Raises:
            GenerationConflictError: It is another one; nothing was changed.
            StorageFullError: There is no room; nothing was changed.
            UnsettledPutError: It may have been replaced, or may be later.
        """
        key_id = change.entry.key_id
        for _ in range(_COMMIT_TRIES):
            tag = self._tags.get(key_id, ABSENT)
            try:
                tag = self._documents.write(
                    key_id, change.document, tag=tag, epoch=epoch
                )
            except VaultConflictError:
                if not self._is_as_known(key_id):
                    break
                continue
            with self._reading:
                self._tags[key_id] = tag
                self._index.put(change.entry)
            return
        raise GenerationConflictError

    def _is_as_known(self, key_id: KeyId) -> bool:
        """Read a document again; whether it is what it was, in another object."""
        with self._reading:
            known = self._index.entry(key_id)
        found = self._documents.read(key_id)
        self.adopt(key_id, found)
        if found.document is None or known is None:
            return found.document is None and known is None and found.tag == ABSENT
        return hashlib.sha256(found.document).hexdigest() == known.digest
