# SPDX-License-Identifier: MIT
"""
Live views of the trail: one recorded operation, with events.

The operation goes through the pipeline like any other, once. What is recorded later is
read from the trail when it is durable, on the pool of reads; nothing is kept for
followers, so one that is slow or gone costs nobody anything. In a cluster, the records
of all logs are read from the database.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from hsm_core._internal.handlers.audit_logs import MergedView
from hsm_core._internal.handlers.audit_view import View, filter_of, learn_keys
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.lib.concurrency import Gate
from hsm_core._internal.lib.silence import pauses
from hsm_core.errors import (
    AuditUnavailableError,
    KeyTamperedError,
    OverloadedError,
    StoreUnavailableError,
)
from hsm_core.operations import AuditPage, ListAuditEvents
from hsm_core.protocols import AuditHead

MOST_FOLLOWERS: Final = 16
"""Maximum number of live views of one HSM."""

_PAUSE_SECONDS: Final = 0.2
"""Interval between two polls of a view that is up to date, in seconds."""

_SHORT_PAUSE_SECONDS: Final = 0.01
"""Interval between two checks that written records are durable, in seconds."""

_FAILED_LOOK_UP: Final = (KeyTamperedError, StoreUnavailableError)
"""Errors after which a view goes on: who follows a key's records sees them anyway."""

_Execute: TypeAlias = Callable[[ListAuditEvents], Awaitable[AuditPage]]
_Read: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]


class LiveViews:
    """
    The live views of one HSM's trail.

    Args:
        services: Dependencies of the handlers.

        gate: Is passed for each look, so that nobody who waits holds up the end.
    """

    def __init__(self, services: HandlerDependencies, gate: Gate) -> None:
        self._services = services
        self._gate = gate
        self._free = threading.Semaphore(MOST_FOLLOWERS)

    async def pages(
        self, operation: ListAuditEvents, execute: _Execute, read: _Read
    ) -> AsyncGenerator[AuditPage, None]:
        """
        Return the pages of one view; see `LiveHSM.follow`.

        Where another policy comes into force, it is executed again: who may not look
        any more sees nothing from then on.

        Args:
            operation: What to show.

            execute: Executes it for its caller.

            read: Runs a function on the pool of reads.
        """
        if not self._free.acquire(blocking=False):
            raise OverloadedError(
                f"{MOST_FOLLOWERS} clients already follow the audit log, the maximum. "
                "Try again later."
            )
        try:
            operation = msgspec.structs.replace(operation, follow=True)
            engine = self._services.policy.engine
            page = await execute(operation)
            place = _place_of(self._services, operation, page)
            with self._gate.passage(), suppress(OverloadedError):
                await read(place.learn_keys)
            await self._until_durable()
            yield page
            while True:
                page = await self._next(place, read)
                while engine is not self._services.policy.engine:
                    engine = self._services.policy.engine
                    await execute(operation)
                yield page
        finally:
            self._free.release()

    async def _until_durable(self) -> None:
        """
        Wait for all that is written by now, the record of the view included.

        Raises:
            AuditUnavailableError: It does not become durable in time.
        """
        loop = asyncio.get_running_loop()
        written = self._services.audit.head().seq
        for seconds in pauses(self._services.settings.audit_timeout_seconds):
            ends = loop.time() + seconds
            while loop.time() < ends:
                if self._durable_head().seq >= written:
                    return
                await asyncio.sleep(_SHORT_PAUSE_SECONDS)
        raise AuditUnavailableError("Writing the audit log timed out.")

    async def _next(self, place: _Place, read: _Read) -> AuditPage:
        """Return the next page that holds something, when there is one."""
        can_read = True
        while True:
            if not (can_read and place.is_behind):
                await asyncio.sleep(_PAUSE_SECONDS)
            with self._gate.passage():
                if not place.may_have_grown():
                    continue
                try:
                    found: AuditPage = await read(place.next_page)
                except OverloadedError:
                    can_read = False
                    continue
            can_read = True
            if found.items:
                return found

    def _durable_head(self) -> AuditHead:
        with self._gate.passage():
            return self._services.audit.durable_head()


class _Place(Protocol):
    """
    Place of a live view in what it follows.

    Attributes:
        is_behind: Whether there is more to read at once.
    """

    is_behind: bool

    def learn_keys(self) -> None:
        """Look up the key that the filter names, if that is possible."""

    def may_have_grown(self) -> bool:
        """Return whether there may be something to read; costs nothing."""
        ...

    def next_page(self) -> AuditPage:
        """Return the page from this place on, and move behind it."""
        ...


class _PlaceInLog:
    """Place in this node's log, behind a page."""

    def __init__(
        self, services: HandlerDependencies, operation: ListAuditEvents, page: AuditPage
    ) -> None:
        self._services = services
        self._operation = operation
        self._filter = filter_of(operation)
        self._view = View(services.audit, operation, self._filter)
        self._move(page)

    def _move(self, page: AuditPage) -> None:
        self._next = page.head_seq + 1 if page.next_seq is None else page.next_seq
        self.is_behind = self._next <= page.head_seq

    def learn_keys(self) -> None:
        """See `_Place`."""
        with suppress(*_FAILED_LOOK_UP):
            learn_keys(self._services, self._operation, self._filter)

    def may_have_grown(self) -> bool:
        """See `_Place`."""
        return self._services.audit.durable_head().seq >= self._next

    def next_page(self) -> AuditPage:
        """See `_Place`."""
        self.learn_keys()
        page = self._view.page(self._next, self._services.audit.durable_head())
        self._move(page)
        return page


class _PlaceInLogs:
    """Place in the logs of a cluster, behind a page; what others read is durable."""

    def __init__(self, view: MergedView, page: AuditPage) -> None:
        self._view = view
        self._cursor = page.next_cursor
        self.is_behind = bool(page.items)

    def learn_keys(self) -> None:
        """See `_Place`."""
        with suppress(*_FAILED_LOOK_UP):
            self._view.learn_keys()

    def may_have_grown(self) -> bool:
        """See `_Place`."""
        return True

    def next_page(self) -> AuditPage:
        """See `_Place`."""
        self.learn_keys()
        page = self._view.page(self._cursor)
        self._cursor, self.is_behind = page.next_cursor, self._view.is_behind
        return page


def _place_of(
    services: HandlerDependencies, operation: ListAuditEvents, page: AuditPage
) -> _Place:
    """Return the place behind the first page of a view."""
    if services.logs is not None and page.next_cursor:
        return _PlaceInLogs(MergedView(services, operation, services.logs), page)
    return _PlaceInLog(services, operation, page)
