# SPDX-License-Identifier: MIT
"""
Readers of the feed: a thread that applies changes soon, and a walk over all of them.

The thread keeps caches warm and plain reads fresh. Nothing that changes or uses a key
rests on it: their transactions read the feed themselves.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hsm_core._internal.stores.postgresql.connection import (
    Location,
    connect,
    postgres_errors,
)
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.feed import (
    BEGINNING,
    KEY,
    Change,
    Position,
    listen,
    next_position,
    read_feed,
)
from hsm_core.errors import IntegrityError
from hsm_core.model import KeyId
from hsm_core.protocols import KnownKey

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_POLL_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.3


class FeedFollower:
    """
    Thread that follows the feed, every 100 ms and when a notice comes.

    Through a pooler in transaction mode no notices come.

    Args:
        follow: Reads the feed on a connection, and applies what is new.

        location: The database; the thread has a connection of its own.
    """

    def __init__(
        self, follow: Callable[[ServerConnection], object], location: Location
    ) -> None:
        self._apply = follow
        self._location = location
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="hsm-core-feed", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; once is enough."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            # A lost connection, an HSM that was locked, or a row that nobody expects:
            # requests meet them too, and whatever it was, it may be over.
            with suppress(Exception):
                self._follow()
            self._closing.wait(_PAUSE_SECONDS)

    def _follow(self) -> None:
        connection = connect(self._location)
        try:
            with postgres_errors():
                listen(connection)
                poll = select.poll()
                poll.register(connection.fileno(), select.POLLIN)
                while not self._closing.is_set():
                    self._apply(connection)
                    poll.poll(_POLL_SECONDS * 1000)
        finally:
            _close(connection)


def _close(connection: ServerConnection) -> None:
    with suppress(Exception):
        connection.close()


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

        start: Where to begin, with nothing known.
    """

    def __init__(self, database: ClusterDatabase, start: Position = BEGINNING) -> None:
        self._database = database
        self._position = start
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
