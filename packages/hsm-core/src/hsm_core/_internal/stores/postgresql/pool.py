# SPDX-License-Identifier: MIT
"""
Pool of connections that are made by the threads that need them.

So a thread learns at once that no connection can be made, and why; a pool that connects
in the background lets it wait for its time-out. A connection that is lost takes the
idle ones with it, which lead to the same server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hsm_core._internal.lib.silence import PATIENCE_SECONDS, pauses
from hsm_core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection


class ConnectionPool:
    """
    Connections of one database. Thread-safe.

    Args:
        connect: Makes a connection.

        size: How many there may be.
    """

    def __init__(self, connect: Callable[[], ServerConnection], size: int) -> None:
        self._connect = connect
        self._room = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[ServerConnection] = []
        self._is_closed = False

    @contextmanager
    def lent(self) -> Iterator[ServerConnection]:
        """
        Lend a connection in no transaction, which nobody else has.

        One that is lost or in a transaction in the end is closed.

        Raises:
            ConfigurationError: The server does not keep what it acknowledges.
            StoreUnavailableError: None is free, or none can be made.
        """
        room = self._room
        if not any(room.acquire(timeout=pause) for pause in pauses(PATIENCE_SECONDS)):
            raise StoreUnavailableError("The database does not answer.")
        try:
            with self._lock:
                found = self._idle.pop() if self._idle else None
            connection = self._connect() if found is None else found
            try:
                yield connection
            finally:
                self._take_back(connection)
        finally:
            self._room.release()

    def _take_back(self, connection: ServerConnection) -> None:
        connection.is_fresh = False
        with self._lock:
            is_kept = connection.is_idle and not self._is_closed
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            connection.abandon()
            self.drain()

    def drain(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close all connections; one that is in use when it is given back."""
        with self._lock:
            self._is_closed = True
        self.drain()
