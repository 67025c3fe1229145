# SPDX-License-Identifier: MIT
"""
Pool of connections that are made by the threads that need them.

So a thread learns at once that no connection can be made, and why; a pool that connects
in the background lets it wait for its time-out. A connection that is lost takes the
idle ones with it, which lead to the same server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from hsm_core._internal.stores.postgresql.connection import PATIENCE_SECONDS
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

    def take(self) -> ServerConnection:
        """
        Return a connection in no transaction, which nobody else has.

        Raises:
            ConfigurationError: The server does not keep what it acknowledges.
            StoreUnavailableError: None is free, or none can be made.
        """
        if not self._room.acquire(timeout=PATIENCE_SECONDS):
            raise StoreUnavailableError("The database does not answer.")
        try:
            with self._lock:
                found = self._idle.pop() if self._idle else None
            return self._connect() if found is None else found
        except BaseException:
            self._room.release()
            raise

    def give_back(self, connection: ServerConnection) -> None:
        """Take a connection back; one that is lost or in a transaction is closed."""
        try:
            connection.is_fresh = False
            if connection.is_idle and not self._is_closed:
                with self._lock:
                    self._idle.append(connection)
                return
            connection.abandon()
            self.drain()
        finally:
            self._room.release()

    def drain(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close all connections; one that is in use when it is given back."""
        self._is_closed = True
        self.drain()
