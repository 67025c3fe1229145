# SPDX-License-Identifier: MIT
"""Strict and bounded reading of bodies and queries."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from hsm_core.errors import MalformedError, PayloadTooLargeError
from hsm_server.http.problems import RequestRefusedError

_MOST_QUERY_FIELDS: Final = 64


def query_pairs(query: str) -> list[tuple[str, str]]:
    """
    Return the names and values of a query, in order, as often as they are given.

    Args:
        query: As it was sent, percent-encoded.

    Raises:
        MalformedError: It can't be read, or has more than 64 fields.
    """
    try:
        return parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=_MOST_QUERY_FIELDS,
        )
    except ValueError:
        raise MalformedError("The query string is malformed.", field="query") from None


async def read_body(
    request: web.Request, what: str, *, most_bytes: int, seconds: float
) -> bytes:
    """
    Return the body of a request.

    Args:
        request: Whose.

        what: What errors call it, one word.

        most_bytes: What is longer is not read to its end.

        seconds: How long it may take to arrive.

    Raises:
        PayloadTooLargeError: It is longer than it may be.
        MalformedError: It broke off.
        RequestRefusedError: It did not arrive in time; the connection ends.
    """
    length = request.content_length
    if length is not None and length > most_bytes:
        raise PayloadTooLargeError(what, actual=length, maximum=most_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > most_bytes:
                    raise PayloadTooLargeError(
                        what, actual=len(body), maximum=most_bytes
                    )
    except TimeoutError:
        raise RequestRefusedError(
            "request_timeout",
            f"The {what} did not arrive in time.",
            {"Connection": "close"},
        ) from None
    except (web.RequestPayloadError, ConnectionError):
        raise MalformedError(f"The {what} ended early.") from None
    return bytes(body)
