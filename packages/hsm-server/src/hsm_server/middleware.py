# SPDX-License-Identifier: MIT
"""What holds for every request: its id, its log line, its errors, its headers."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from hsm_core.errors import HSMError
from hsm_server.app_keys import (
    IN_FLIGHT,
    LOGGER,
    METRICS,
    Exchange,
    exchange_of,
    start_exchange,
)
from hsm_server.logs import location
from hsm_server.problems import (
    RequestRefusedError,
    problem_response,
    status_of,
)

__all__ = [
    "COMMON_HEADERS",
    "REQUEST_ID_HEADER",
    "answer_everything",
    "set_common_headers",
]

REQUEST_ID_HEADER: Final = "X-Request-Id"
"""Header that ties a request to log and trail, in both directions."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CODES: Final = {
    404: "route_not_found",
    405: "method_not_allowed",
}
COMMON_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "ferrohsm",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer carries."""


@web.middleware
async def answer_everything(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Give a request its id, turn every error into a problem, count and log it."""
    given = request.headers.getall(REQUEST_ID_HEADER, [])
    usable = len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) is not None
    exchange = start_exchange(request, given[0] if usable else secrets.token_hex(8))
    started = time.perf_counter()
    response: web.StreamResponse | None = None
    in_flight = request.app[IN_FLIGHT]
    in_flight.begin(request.protocol)
    try:
        response = await _answer(request, handler, exchange)
        if in_flight.is_draining:
            response.force_close()
        return response
    except asyncio.CancelledError:
        exchange.code = "cancelled"
        raise
    finally:
        seconds = time.perf_counter() - started
        request.app[METRICS].count_request(exchange.operation, exchange.code, seconds)
        request.app[LOGGER].info(
            "request",
            request_id=exchange.request_id,
            method=request.method if request.method.isalpha() else "?",
            operation=exchange.operation,
            principal=exchange.principal,
            status=response.status if response is not None else 0,
            code=exchange.code,
            milliseconds=round(seconds * 1000, 3),
        )


async def _answer(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    exchange: Exchange,
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (HSMError, RequestRefusedError) as error:
        if isinstance(error, HSMError) and status_of(type(error)) >= 500:
            request.app[LOGGER].warning(
                "unavailable", request_id=exchange.request_id, code=error.code
            )
        exchange.code = error.code
        return problem_response(error, exchange.request_id)
    except web.HTTPException as error:
        refusal = _refusal(error)
        exchange.code = refusal.code
        return problem_response(refusal, exchange.request_id)
    except Exception as error:
        return _unexpected(request, error, exchange)


def _refusal(error: web.HTTPException) -> RequestRefusedError:
    code = _CODES.get(error.status, "internal")
    match code:
        case "route_not_found":
            return RequestRefusedError(code, "There is no such route.")
        case "method_not_allowed":
            allowed = error.headers.get("Allow", "")
            return RequestRefusedError(
                code, f"This route takes {allowed}.", {"Allow": allowed}
            )
        case _:
            return RequestRefusedError(code, "The request can't be answered.")


def _unexpected(
    request: web.Request, error: Exception, exchange: Exchange
) -> web.Response:
    """Answer 500 and say nothing: who asked can't help it, and may be an attacker."""
    request.app[METRICS].count_unexpected()
    request.app[LOGGER].error(
        "unexpected",
        request_id=exchange.request_id,
        operation=exchange.operation,
        error=type(error).__name__,
        place=location(error.__traceback__),
    )
    exchange.code = "internal"
    refusal = RequestRefusedError("internal", "The request failed.")
    return problem_response(refusal, exchange.request_id)


async def set_common_headers(
    request: web.Request, response: web.StreamResponse
) -> None:
    """Set what every answer carries; a signal of the application."""
    response.headers.update(COMMON_HEADERS)
    exchange = exchange_of(request)
    if exchange is not None:
        response.headers[REQUEST_ID_HEADER] = exchange.request_id
