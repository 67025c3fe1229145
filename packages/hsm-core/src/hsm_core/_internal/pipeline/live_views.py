# SPDX-License-Identifier: MIT
"""
Live views of the trail: one recorded operation, with events.

The operation goes through the pipeline like any other, once. What is recorded later is
read from the trail when it is durable, on the pool of reads; nothing is kept for
followers, so one that is slow or gone costs nobody anything.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec

from hsm_core._internal.handlers.audit import View
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.lib.concurrency import Gate
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
            view = View(self._services, operation)
            with self._gate.passage(), suppress(OverloadedError):
                await read(partial(_learn_keys, view))
            await self._until_durable()
            yield page
            while True:
                page = await self._next(view, page, read)
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
        ends = loop.time() + self._services.settings.audit_timeout_seconds
        written = self._services.audit.head().seq
        while self._durable_head().seq < written:
            if loop.time() >= ends:
                raise AuditUnavailableError("Writing the audit log timed out.")
            await asyncio.sleep(_SHORT_PAUSE_SECONDS)

    async def _next(self, view: View, page: AuditPage, read: _Read) -> AuditPage:
        """Return the page after *page* that holds something, when there is one."""
        position, is_behind = _after(page), _is_behind(page)
        while True:
            if not is_behind:
                await asyncio.sleep(_PAUSE_SECONDS)
            found = await self._look(view, position, read)
            if found is not None and found.items:
                return found
            is_behind = found is not None and _is_behind(found)
            position = position if found is None else _after(found)

    async def _look(self, view: View, position: int, read: _Read) -> AuditPage | None:
        """Return what is new from a position on, or None if nothing is, or not now."""
        with self._gate.passage():
            head = self._services.audit.durable_head()
            if head.seq < position:
                return None
            try:
                page: AuditPage = await read(partial(_page, view, position, head))
            except OverloadedError:
                return None
        return page

    def _durable_head(self) -> AuditHead:
        with self._gate.passage():
            return self._services.audit.durable_head()


def _page(view: View, position: int, head: AuditHead) -> AuditPage:
    _learn_keys(view)
    return view.page(position, head)


def _learn_keys(view: View) -> None:
    # Whatever happens to the key, who follows its records sees them.
    with suppress(KeyTamperedError, StoreUnavailableError):
        view.learn_keys()


def _after(page: AuditPage) -> int:
    return page.head_seq + 1 if page.next_seq is None else page.next_seq


def _is_behind(page: AuditPage) -> bool:
    return _after(page) <= page.head_seq
