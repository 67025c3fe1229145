# SPDX-License-Identifier: MIT
"""Failures that a test plans."""

from __future__ import annotations

import threading
from dataclasses import replace

from hsm_core.protocols import AuditHealth

__all__ = [
    "Faults",
]


class Faults:
    """
    Failures that a test plans for calls of a store or trail.

    A call is named ``store.<method>``, ``counters.<method>`` or ``audit.<method>``.
    """

    def __init__(self) -> None:
        self._planned: dict[str, tuple[int, int, Exception]] = {}
        self._unknown: list[bool] = []
        self._trail = AuditHealth()
        self._lock = threading.Lock()

    def plan(
        self, call: str, error: Exception, *, after: int = 0, times: int = 1
    ) -> None:
        """
        Let a call raise *error*.

        Args:
            call: Such as ``store.commit``.

            error: What to raise.

            after: How many calls still succeed.

            times: How many calls then fail.
        """
        with self._lock:
            self._planned[call] = (after, times, error)

    def plan_unknown_commit(self, *, made: bool) -> None:
        """
        Let the next commit, or the one after those planned so, end as unknown.

        The store is then unavailable until it is reopened.

        Args:
            made: Whether the change is made all the same.
        """
        with self._lock:
            self._unknown.append(made)

    def fail_trail(self, cause: str = "write") -> None:
        """Let every append fail, for a cause of `AuditHealth`, until `heal_trail`."""
        with self._lock:
            self._trail = replace(
                self._trail,
                state="failing",
                cause=cause,
                failures=self._trail.failures + 1,
            )

    def heal_trail(self) -> None:
        """Let appends succeed again."""
        with self._lock:
            if self._trail.cause:
                self._trail = replace(
                    self._trail, state="ok", cause="", resumes=self._trail.resumes + 1
                )

    @property
    def trail_health(self) -> AuditHealth:
        """What `fail_trail` and `heal_trail` have made of the trail."""
        return self._trail

    def clear(self) -> None:
        """Let everything succeed again."""
        self.heal_trail()
        with self._lock:
            self._planned.clear()
            self._unknown.clear()

    def strike(self, call: str) -> None:
        """Raise what is planned for this call, if anything."""
        with self._lock:
            after, times, error = self._planned.get(call, (0, 0, None))
            if error is None or times == 0:
                return
            if after:
                self._planned[call] = (after - 1, times, error)
                return
            self._planned[call] = (0, times - 1, error)
        raise error

    def take_unknown_commit(self) -> bool | None:
        """Return whether a commit of unknown end is made; None if none is planned."""
        with self._lock:
            return self._unknown.pop(0) if self._unknown else None
