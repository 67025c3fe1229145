# SPDX-License-Identifier: MIT
"""Waits of event loops for records to become durable: one callback for each group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from hsm_core._internal.audit.medium import as_unavailable
from hsm_core._internal.lib.silence import MOMENT_SECONDS
from hsm_core.errors import AuditUnavailableError
from hsm_core.protocols import AuditTicket

Settle: TypeAlias = Callable[[AuditUnavailableError | None], None]


class DurabilityWaits:
    """
    Tells those who wait on event loops for audit tickets.

    All appends of a group share one ticket. The first on a loop asks for a callback,
    and the others join it, so that a group wakes its loop once.

    Args:
        timeout_seconds: How long a group is waited for.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._newest: _Wait | None = None

    def add(
        self, ticket: AuditTicket, settle: Settle, abandon: Callable[[], None]
    ) -> None:
        """
        Wait for a ticket on the running loop.

        Args:
            ticket: That of the records.

            settle: Called on this loop when they are durable, or can't be, or are late.

            abandon: Called instead, on another thread, where the loop is gone.
        """
        loop, newest = asyncio.get_running_loop(), self._newest
        if newest is None or newest.is_told or not newest.is_for(ticket, loop):
            newest = self._newest = _Wait(ticket, loop, self._timeout_seconds)
        newest.settles.append(settle)
        newest.abandons.append(abandon)
        if len(newest.settles) == 1:
            ticket.add_done_callback(newest.tell_loop)


class _Wait:
    def __init__(
        self, ticket: AuditTicket, loop: asyncio.AbstractEventLoop, seconds: float
    ) -> None:
        self._ticket = ticket
        self._loop = loop
        self.settles: list[Settle] = []
        self.abandons: list[Callable[[], None]] = []
        self.is_told = False
        self._late = loop.call_later(seconds, self._wait_a_moment)

    def is_for(self, ticket: AuditTicket, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether it waits for this ticket on this loop."""
        return self._ticket is ticket and self._loop is loop

    def tell_loop(self, error: BaseException | None) -> None:
        """Tell the loop, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._tell, error)
        except RuntimeError:
            for abandon in self.abandons:
                abandon()

    def _wait_a_moment(self) -> None:
        self._late = self._loop.call_later(
            MOMENT_SECONDS, self._settle, AuditUnavailableError()
        )

    def _tell(self, error: BaseException | None) -> None:
        self._late.cancel()
        self._settle(None if error is None else _unavailable(error))

    def _settle(self, error: AuditUnavailableError | None) -> None:
        # Who comes now waits for itself, with a time-out of its own.
        self.is_told = True
        # The newest wait is kept: what it has told must not stay in memory with it.
        settles, self.settles, self.abandons = self.settles, [], []
        for settle in settles:
            settle(error)


def _unavailable(error: BaseException) -> AuditUnavailableError:
    unavailable = as_unavailable(error)
    unavailable.__cause__ = error
    return unavailable
