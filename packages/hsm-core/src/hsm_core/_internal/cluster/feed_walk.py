# SPDX-License-Identifier: MIT
"""Walk over all changes of a cluster, for the last state of each key by the feed."""

from __future__ import annotations

from collections.abc import Mapping

from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.feed import (
    BEGINNING,
    KEY,
    Change,
    Position,
    next_position,
    read_feed,
)
from hsm_core.errors import IntegrityError
from hsm_core.model import KeyId
from hsm_core.protocols import KnownKey


def key_before(change: Change) -> KnownKey | None:
    """Return a key as it was before a change; None if there was none."""
    if not change.before:
        return None
    return KnownKey(KeyId(change.subject), change.generation - 1, change.before)


def key_after(change: Change) -> KnownKey | None:
    """Return a key as a change has left it; None if it is gone."""
    if not change.digest:
        return None
    return KnownKey(KeyId(change.subject), change.generation, change.digest)


class FeedWalk:
    """
    Last state of each key by the feed. It costs as much as there are changes.

    Args:
        database: Of the cluster.
    """

    def __init__(self, database: ClusterDatabase) -> None:
        self._database = database
        self._position = BEGINNING
        self._known: dict[KeyId, KnownKey] = {}

    def up_to(self, end: Position) -> Mapping[KeyId, KnownKey]:
        """
        Return the last state of each key at a position that was applied.

        Raises:
            IntegrityError: The changes in the database do not lead there.
            StoreUnavailableError: They can't be read.
        """
        while self._position.revision < end.revision:
            before = self._position
            with self._database.reading() as connection:
                changes = read_feed(connection, before.revision).changes
            for stored in changes:
                if self._position.revision < end.revision:
                    self._position = next_position(self._position, stored.change)
                    self._count(stored.change)
            if self._position == before:
                break
        if self._position != end:
            raise IntegrityError("The changes in the database were altered.")
        return self._known

    def _count(self, change: Change) -> None:
        if change.kind != KEY:
            return
        after = key_after(change)
        if after is None:
            self._known.pop(KeyId(change.subject), None)
        else:
            self._known[after.key_id] = after
