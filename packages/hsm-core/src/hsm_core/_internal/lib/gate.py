# SPDX-License-Identifier: MIT
"""Gate: counts running operations, so that closing can wait for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hsm_core.errors import UnavailableError


class Gate:
    """Admission gate for operations. Thread-safe."""

    def __init__(self) -> None:
        self._inside = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._process = os.getpid()

    @contextmanager
    def passage(self) -> Iterator[None]:
        """
        Hold a passage for the duration of a ``with`` block.

        Raises:
            UnavailableError: See `enter`.
        """
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """
        Hold a passage until `leave`.

        Raises:
            UnavailableError: The gate is closed, or belongs to the parent process.
        """
        if os.getpid() != self._process:
            raise UnavailableError(
                "The HSM was opened by the parent process; open it again in this one."
            )
        with self._changed:
            if self._is_closed:
                raise UnavailableError("The HSM is closed.")
            self._inside += 1

    def leave(self) -> None:
        """Release a passage."""
        with self._changed:
            self._inside -= 1
            if self._is_closed:
                self._changed.notify_all()

    def close(self, timeout_seconds: float) -> bool:
        """
        Refuse new passages, wait, and return whether all were released.

        Don't call it while holding a passage: it would wait for its own caller.
        """
        if os.getpid() != self._process:
            return False
        with self._changed:
            self._is_closed = True
            return self._changed.wait_for(
                lambda: self._inside == 0, timeout=timeout_seconds
            )
