# SPDX-License-Identifier: MIT
"""Which connections have a request that is not answered yet."""

from __future__ import annotations

import asyncio

from aiohttp import web

__all__ = ["InFlight"]


class InFlight:
    """
    Lets the end of the server wait for the answers that it owes.

    Attributes:
        is_draining: Whether answers now close their connections.
    """

    def __init__(self) -> None:
        self._busy: set[web.RequestHandler] = set()
        self._changed = asyncio.Event()
        self.is_draining = False

    def __contains__(self, connection: web.RequestHandler) -> bool:
        return connection in self._busy

    def begin(self, connection: web.RequestHandler) -> None:
        """Note that a connection has a request."""
        self._busy.add(connection)

    def end(self, connection: web.RequestHandler) -> None:
        """Note that its answer is sent, or that the connection is gone."""
        self._busy.discard(connection)
        self._changed.set()

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until all is answered; return whether that came in time."""
        self.is_draining = True
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._busy:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
