# SPDX-License-Identifier: MIT
"""Parts of a page that come by themselves: server-sent events (HTML, section 9.2)."""

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
    # Proxies that collect an answer before they pass it on would hold it up.
    "X-Accel-Buffering": "no",
}


def event(kind: str, text: str) -> bytes:
    """Return an event; a line break of the text begins another line of its data."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {kind}\n{lines}\n".encode()


async def answer_events(
    view: View, parts: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """
    Send parts until they end, the client leaves, the server drains, or a session ends.

    Args:
        view: What is answered.

        parts: Each is an event.
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
                    # A page that nobody may see any more does not go on.
                    known = view.exchange.know
                    await request.app[VAULT].who(view.visitor, known=known)
                    if part is not None:
                        await write_part(request, response, part)
    return response
