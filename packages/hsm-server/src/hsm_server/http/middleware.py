# SPDX-License-Identifier: MIT
"""Middleware of every request: ID, log line, errors, headers."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from hsm_core.errors import AuthenticationError, MalformedError
from hsm_server.http.app_keys import (
    GUARD,
    IN_FLIGHT,
    LOGGER,
    METRICS,
    SETTINGS,
    TRACING,
    Exchange,
    exchange_of,
    start_exchange,
)
from hsm_server.http.failures import answer_failure
from hsm_server.http.request_checks import flaw_of
from hsm_server.http.visitors import address_of, shown_by
from hsm_server.observability.tracing import Done, parent_of

REQUEST_ID_HEADER: Final = "X-Request-Id"
"""Request ID header, in both directions; also in log and audit log."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
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

_OWN: Final = ("Cache-Control", "Content-Security-Policy", "Referrer-Policy")
"""Of these, what an answer says itself."""


def request_id_of(request: web.Request) -> str:
    """Return the id that a request brings, if it is a good one, or a new one."""
    given = request.headers.getall(REQUEST_ID_HEADER, [])
    usable = len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) is not None
    return given[0] if usable else secrets.token_hex(8)


@web.middleware
async def answer_everything(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Wrap each request: ID, errors, metrics, log line."""
    exchange = start_exchange(request, request_id_of(request))
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
        status = response.status if response is not None else 0
        _tell_of(request, exchange, status, time.perf_counter() - started)


def _tell_of(
    request: web.Request, exchange: Exchange, status: int, seconds: float
) -> None:
    """Count and log a request, and let it have its span."""
    request.app[METRICS].count_request(exchange.operation, exchange.code, seconds)
    if exchange.is_turned_away:
        # A flood must not fill the disk by way of the log; metrics count it.
        return
    method = request.method if request.method.isalpha() else "?"
    ended_ns = time.time_ns()
    done = Done(
        operation=exchange.operation,
        code=exchange.code,
        status=status,
        method=method,
        request_id=exchange.request_id,
        parent=parent_of(request.headers.getall("traceparent", [])),
        began_ns=ended_ns - int(seconds * 1e9),
        ended_ns=ended_ns,
    )
    trace_id = request.app[TRACING].note(done)
    request.app[LOGGER].info(
        "request",
        request_id=exchange.request_id,
        **({"trace_id": trace_id} if trace_id else {}),
        method=method,
        operation=exchange.operation,
        principal=exchange.principal,
        status=status,
        code=exchange.code,
        milliseconds=round(seconds * 1000, 3),
    )


async def _answer(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    exchange: Exchange,
) -> web.StreamResponse:
    if flaw := flaw_of(request):
        refused = answer_failure(request, MalformedError(flaw), exchange)
        refused.force_close()
        return refused
    guard = request.app[GUARD]
    address, shown = address_of(request), shown_by(request)
    try:
        refusal = guard.admit(address, shown)
        if refusal is not None:
            exchange.limit(refusal)
            exchange.is_turned_away = True
            raise refusal.error()
        response = await handler(request)
    except Exception as error:
        response = answer_failure(request, error, exchange)
    if exchange.code == AuthenticationError.code:
        guard.note_failure(address, shown)
    elif exchange.principal:
        guard.note_good(shown, exchange.principal)
    if exchange.quota is None and request.app[SETTINGS].rates.per_second:
        guard.note_stray(shown)
    return response


async def set_common_headers(
    request: web.Request, response: web.StreamResponse
) -> None:
    """Set what every answer carries; a signal of the application."""
    own = {name: response.headers[name] for name in _OWN if name in response.headers}
    response.headers.update({**COMMON_HEADERS, **own})
    exchange = exchange_of(request)
    if exchange is not None and exchange.quota is not None:
        response.headers.update(exchange.quota.headers)
    if exchange is not None:
        response.headers[REQUEST_ID_HEADER] = exchange.request_id
