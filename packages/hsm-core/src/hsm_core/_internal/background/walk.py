# SPDX-License-Identifier: MIT
"""A walk over all keys in a state, that can be left and taken up again."""

from __future__ import annotations

from collections import deque
from typing import Final

from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core.errors import KeyNotFoundError, KeyTamperedError
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.protocols import IndexQuery

_PAGE: Final = 64


class KeyWalk:
    """
    Iterator over the keys with a given state of the current version, in rounds.

    It follows the index and checks each entry against the document. The scrubber finds
    keys that the index omits. Keys that fail their integrity check are skipped.

    Args:
        inventory: The keys.

        state: State of the current version.
    """

    def __init__(self, inventory: KeyRepository, state: KeyState) -> None:
        self._inventory = inventory
        self._filter = KeyFilter(state=state)
        self._after: tuple[int, str] | None = None
        self._ahead: deque[tuple[int, KeyId]] = deque()

    def next(self) -> KeyDocument | None:
        """
        Return the next key, or None at the end of a round.

        Raises:
            StoreUnavailableError: The store can't be read now.
        """
        while True:
            if not self._ahead:
                query = IndexQuery(filter=self._filter, limit=_PAGE, after=self._after)
                self._ahead.extend(self._inventory.store.find(query).keys)
            if not self._ahead:
                self._after = None
                return None
            place = self._ahead[0]
            document = self._read(place[1])
            self._ahead.popleft()
            self._after = place
            if document is not None:
                return document

    def restart(self) -> None:
        """Start a new round."""
        self._ahead.clear()
        self._after = None

    def _read(self, key_id: KeyId) -> KeyDocument | None:
        try:
            document = self._inventory.document(key_id)
        except (KeyNotFoundError, KeyTamperedError):
            return None
        wanted = self._filter.state
        return document if document.current_version.state is wanted else None
