# SPDX-License-Identifier: MIT
"""Responses: their parts, their common headers, and whole ones as bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from hsm_core.rest import REVISION_HEADER
from hsm_server.http.state import Exchange

REQUEST_ID_HEADER: Final = "X-Request-Id"
"""Request ID header, in both directions; also in log and audit log."""

COMMON_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "ferrohsm",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every response."""


class Parts(NamedTuple):
    """
    Parts of a response that depend on the request.

    Attributes:
        status: HTTP status.
        content_type: Media type of *body*.
        body: The body.
        headers: Further headers.
    """

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}

    def response(self) -> web.Response:
        """Return the response for the middleware to complete."""
        return web.Response(
            body=self.body,
            status=self.status,
            content_type=self.content_type,
            headers=self.headers,
        )

    def complete(self, exchange: Exchange, *, closes: bool = False) -> bytes:
        """
        Return the whole response, as the middleware and aiohttp would send it.

        Args:
            exchange: Request ID, and the rest of the caller's rate limit.

            closes: Whether the connection closes after it.
        """
        quota = "" if exchange.quota is None else _lines(exchange.quota.headers)
        revision = ""
        if exchange.revision:
            revision = f"{REVISION_HEADER}: {exchange.revision}\r\n"
        head = (
            f"{_head(self.status, self.content_type, tuple(self.headers.items()))}"
            f"Content-Length: {len(self.body)}\r\nDate: {_date(int(time.time()))}\r\n"
            f"{_CLOSING if closes else _COMMON}{quota}{revision}"
            f"{REQUEST_ID_HEADER}: {exchange.request_id}\r\n\r\n"
        )
        return head.encode("latin-1") + self.body


@lru_cache(maxsize=64)
def _head(status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> str:
    """Return the beginning of a response, which many have in common."""
    fields = {**dict(headers), "Content-Type": content_type}
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{_lines(fields)}"


def _lines(fields: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


_SERVER: Final = {"Server": COMMON_HEADERS["Server"]}
_COMMON: Final = _lines({**_SERVER, **COMMON_HEADERS})
_CLOSING: Final = _lines({**_SERVER, "Connection": "close", **COMMON_HEADERS})


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """Return an instant as an HTTP date (RFC 9110, section 5.6.7)."""
    return formatdate(second, usegmt=True)


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
