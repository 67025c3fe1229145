# SPDX-License-Identifier: MIT
"""Connection lock with a time-out, for a holder that hangs on the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hsm_core.errors import StoreUnavailableError

_PATIENCE_SECONDS: Final = 1.5
"""How long one turn may last before readers give up; an answer has two seconds."""


class ConnectionLock:
    """
    A turn of one thread at a time, which may take it again within.

    Attributes:
        lock: Held by whose turn it is. Who asks for little may take it, if nobody else
            has it, without telling since when.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._since = 0.0
        self._depth = 0

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """
        Have the turn for the duration of a ``with`` block.

        Raises:
            StoreUnavailableError: Another has it for too long.
        """
        if not self.lock.acquire(blocking=False):
            self.wait()
        self._begin()
        try:
            yield
        finally:
            self.end()

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Have the turn, however long it takes until it comes."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def wait(self) -> None:
        """
        Take the lock alone, as soon as it is free.

        Raises:
            StoreUnavailableError: Another has it for too long.
        """
        asked = time.monotonic()
        while True:
            left = (self._since or asked) + _PATIENCE_SECONDS - time.monotonic()
            if left <= 0:
                raise StoreUnavailableError("The database does not answer.")
            if self.lock.acquire(timeout=left):
                return

    def begin(self) -> None:
        """Take the turn, however long it takes until it comes."""
        self.lock.acquire()
        self._begin()

    def end(self) -> None:
        """Give the turn to the next."""
        self._depth -= 1
        if not self._depth:
            self._since = 0.0
        self.lock.release()

    def _begin(self) -> None:
        if not self._depth:
            self._since = time.monotonic()
        self._depth += 1
