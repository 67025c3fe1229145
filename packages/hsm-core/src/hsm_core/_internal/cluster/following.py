# SPDX-License-Identifier: MIT
"""
Follower of the feed: a thread that applies changes soon after they are committed.

It keeps caches warm and plain reads fresh. Nothing that changes or uses a key rests on
it: their transactions read the feed themselves.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hsm_core._internal.stores.postgresql.connection import (
    Location,
    connect,
    postgres_errors,
)
from hsm_core._internal.stores.postgresql.feed import listen

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
