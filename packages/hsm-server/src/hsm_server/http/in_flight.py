# SPDX-License-Identifier: MIT
"""Requests in flight, for graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from aiohttp import web


class InFlight:
    """
    In-flight requests: lets a shutdown wait for their responses.

    Attributes:
        is_draining: Whether responses now close their connections.
    """

    def __init__(self) -> None:
        self._busy: set[web.RequestHandler] = set()
        self._endless: dict[asyncio.Future[None], web.RequestHandler] = {}
        self._changed = asyncio.Event()
        self.is_draining = False

    def __contains__(self, connection: web.RequestHandler) -> bool:
        return connection in self._busy

    def begin(self, connection: web.RequestHandler) -> None:
        """Mark a connection as having a request in flight."""
        self._busy.add(connection)

    def end(self, connection: web.RequestHandler) -> None:
        """Mark its request as answered, or the connection as gone."""
        self._busy.discard(connection)
        self._changed.set()

    @contextlib.contextmanager
    def endless(self, connection: web.RequestHandler) -> Iterator[asyncio.Future[None]]:
        """
        Mark a response as endless: a shutdown ends it instead of waiting.

        What is given is done when the drain begins, or by `end_stream`.
        """
        self.end(connection)
        ends: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_draining:
            ends.set_result(None)
        self._endless[ends] = connection
        try:
            yield ends
        finally:
            del self._endless[ends]

    def begin_drain(self) -> None:
        """Let answers close their connections, and end those that have no end."""
        self.is_draining = True
        for ends in self._endless:
            if not ends.done():
                ends.set_result(None)

    def end_stream(self, connection: web.RequestHandler) -> None:
        """End what has no end on one connection."""
        for ends, whose in self._endless.items():
            if whose is connection and not ends.done():
                ends.set_result(None)

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until all is answered; return whether that came in time."""
        self.begin_drain()
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._busy:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
