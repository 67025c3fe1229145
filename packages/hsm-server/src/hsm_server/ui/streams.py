# SPDX-License-Identifier: MIT
"""Server-sent events of live page parts (HTML, section 9.2)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from aiohttp import web

from hsm_core.errors import HSMError
from hsm_server.api.live_view import write_part
from hsm_server.http.app_keys import IN_FLIGHT, VAULT
from hsm_server.limits.pacing import with_pauses
from hsm_server.ui.view import View

_LOOK_SECONDS: Final = 2.0

_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    # Proxies must not buffer the response.
    "X-Accel-Buffering": "no",
}


def event(kind: str, text: str) -> bytes:
    """Return an event; each line of the text is one line of data."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {kind}\n{lines}\n".encode()


async def answer_events(
    view: View, parts: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """
    Send events until the events, the connection, the server or the session ends.

    Args:
        view: The browser's request.

        parts: Events.
    """
    request = view.request
    response = web.StreamResponse(headers=_HEADERS)
    with request.app[IN_FLIGHT].endless(request.protocol) as ends:
        paced = with_pauses(parts, lambda: _LOOK_SECONDS, ends=ends)
        async with contextlib.aclosing(paced):
            with contextlib.suppress(ConnectionError, HSMError):
                await response.prepare(request)
                if request.method == "HEAD":
                    return response
                async for part in paced:
                    # Stop when the session has ended.
                    known = view.exchange.know
                    await request.app[VAULT].who(view.visitor, known=known)
                    if part is not None:
                        await write_part(request, response, part)
    return response
