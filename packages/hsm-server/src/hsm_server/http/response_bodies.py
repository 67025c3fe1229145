# SPDX-License-Identifier: MIT
"""Bodies of responses."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

SLICE_BYTES: Final = 64 * 1024
"""As much as `TLSConnection` encrypts at once."""


class SlicedBody(Payload):
    """
    Body of bytes that is written in slices, as fast as the client reads.

    At once, TLS would keep an encrypted copy of all of it for a slow client.

    Args:
        data: The body.
    """

    _value: bytes

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all slices, each when there is room for it."""
        view = memoryview(self._value)
        for begin in range(0, len(view), SLICE_BYTES):
            await writer.write(view[begin : begin + SLICE_BYTES])


def bytes_response(
    data: bytes, *, status: int, content_type: str, headers: dict[str, str]
) -> web.Response:
    """Return a response with a body of any length."""
    body = data if len(data) <= SLICE_BYTES else SlicedBody(data)
    return web.Response(
        body=body, status=status, content_type=content_type, headers=headers
    )
