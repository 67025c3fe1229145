# SPDX-License-Identifier: MIT
"""
Documents in a vault, each write in a unique frame.

The frame tells which tenure wrote the object, and has a random token. So rewriting the
same document changes the object's tag, and every put still in flight is refused when it
arrives: the object is *fenced*. Where there is no document, a frame around nothing does
the same for a key that somebody is still making.

Nothing of a frame is trusted; who forges one can only cause refusals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from hsm_core._internal.stores.records import document_name
from hsm_core._internal.stores.remote.access import VaultAccess
from hsm_core.errors import StoreUnavailableError, VaultConflictError
from hsm_core.model import KeyId
from hsm_core.protocols import ABSENT, Entropy

_FRAME: Final = re.compile(rb"ferrohsm-document 1 ([0-9]{1,18}) [0-9a-f]{32}\n")
_TOKEN_BYTES: Final = 16
_FENCE_TRIES: Final = 8
_READERS: Final = 8
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """
    What lies in the vault for a key's document.

    Attributes:
        document: Not trusted; None if there is none.
        tag: Of the object, or `ABSENT`.
        epoch: Of the tenure that wrote it, as the object says; 0 where there is none,
            and None in an object that no store has written.
    """

    document: bytes | None
    tag: str
    epoch: int | None


class RemoteDocuments:
    """
    Documents by key.

    Args:
        vault: Where they lie.

        entropy: Source of the tokens.
    """

    def __init__(self, vault: VaultAccess, entropy: Entropy) -> None:
        self._vault = vault
        self._entropy = entropy

    def read(self, key_id: KeyId) -> FoundDocument:
        """Return what lies there now."""
        found = self._vault.get(document_name(key_id))
        if found is None:
            return FoundDocument(None, ABSENT, 0)
        frame = _FRAME.match(found.data)
        if frame is None:
            return FoundDocument(found.data, found.tag, None)
        document = found.data[frame.end() :]
        return FoundDocument(document or None, found.tag, int(frame[1]))

    def read_many(
        self, key_ids: Iterable[KeyId]
    ) -> Iterator[tuple[KeyId, FoundDocument]]:
        """Return what lies there for many keys, in their order."""
        remaining = iter(key_ids)
        with ThreadPoolExecutor(_READERS, "hsm-core-vault") as pool:
            while batch := list(islice(remaining, _BATCH)):
                yield from zip(batch, pool.map(self.read, batch), strict=True)

    def write(self, key_id: KeyId, document: bytes, *, tag: str, epoch: int) -> str:
        """
        Replace a document, and return the new tag.

        Args:
            key_id: Its key.

            document: May be empty, which is none.

            tag: What the object must have now, or `ABSENT`.

            epoch: Of the tenure that writes.

        Raises:
            VaultConflictError: It has another tag; nothing was written.
            StorageFullError: There is no room; nothing was written.
            UnsettledError: It may have been written, or may be later.
        """
        token = self._entropy.random_bytes(_TOKEN_BYTES).hex()
        frame = f"ferrohsm-document 1 {epoch} {token}\n".encode()
        return self._vault.put_surely(
            document_name(key_id), frame + document, expected=tag
        )

    def fence(self, key_id: KeyId, *, epoch: int) -> FoundDocument:
        """
        Return what lies there, after no earlier write can arrive any more.

        An object that no store has written stays as it is: no write expects it.

        Raises:
            StoreUnavailableError: That could not be brought about.
        """
        for _ in range(_FENCE_TRIES):
            found = self.read(key_id)
            if found.epoch is None:
                return found
            document = found.document or b""
            try:
                tag = self.write(key_id, document, tag=found.tag, epoch=epoch)
            except VaultConflictError:
                continue
            return FoundDocument(found.document, tag, epoch)
        raise StoreUnavailableError(
            f"The document of {key_id} keeps changing; try again."
        )
