# SPDX-License-Identifier: MIT
"""Stores in memory: open until they are closed, and never refusing a write."""

from __future__ import annotations

import threading

from hsm_core.errors import StoreUnavailableError


class InMemory:
    """
    Base of stores in memory: a lock, and whether they are open.

    Args:
        what: Which store it is, for errors.
    """

    def __init__(self, what: str) -> None:
        self._lock = threading.Lock()
        self._what = what
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"The {self._what} is closed.")

    @property
    def available(self) -> bool:
        """Whether it is open."""
        return not self._closed

    def reopen(self) -> None:
        """Do nothing: no write fails here."""
        with self._lock:
            self._check_open()

    def close(self) -> None:
        """Keep the data, but refuse further calls."""
        with self._lock:
            self._closed = True
