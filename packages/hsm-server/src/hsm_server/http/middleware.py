# SPDX-License-Identifier: MIT
"""
Middleware of every request: ID, log line, errors, headers; early refusal in a flood.

Under a flood full request handling is too expensive. The response to a locked-out
address is written in one piece, before routing. Its bytes and its metrics are those of
the normal path.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeAlias

from aiohttp import HttpVersion11, web

from hsm_core import wire
from hsm_core.error_records import asked_approval
from hsm_core.errors import (
    AuthenticationError,
    HSMError,
    MalformedError,
    RateLimitedError,
)
from hsm_core.operations import OPERATIONS, ApprovalInfo
from hsm_core.rest import API_PREFIX, REVISION_HEADER
from hsm_server.http.credentials import address_of, shown_by, source_of
from hsm_server.http.problems import RequestRefusedError, problem_parts, status_of
from hsm_server.http.requests import flaw_of
from hsm_server.http.responses import COMMON_HEADERS, REQUEST_ID_HEADER, Parts
from hsm_server.http.state import (
    GUARD,
    IN_FLIGHT,
    LOGGER,
    METRICS,
    SETTINGS,
    SOURCES,
    TRACING,
    VAULT,
    Exchange,
    exchange_of,
    start_exchange,
)
from hsm_server.observability.places import location
from hsm_server.observability.tracing import Done, parent_of

FailurePages: TypeAlias = Callable[
    [web.Request, HSMError | RequestRefusedError, Exchange], web.Response | None
]
"""Renders failures for browsers; returns None for programs."""

FAILURE_PAGES: Final[web.AppKey[FailurePages]] = web.AppKey("FAILURE_PAGES")
"""Renderer of failures, if there is a console."""


def answer_failure(
    request: web.Request, error: Exception, exchange: Exchange
) -> web.Response:
    """Return the response to a failed request, and set its code."""
    known = note_failure(request.app, error, exchange)
    pages = request.app.get(FAILURE_PAGES)
    if pages is not None and (page := pages(request, known, exchange)) is not None:
        return page
    return failure_parts(known, exchange).response()


def failure_parts(known: HSMError | RequestRefusedError, exchange: Exchange) -> Parts:
    """Return the response to a failed request of a program."""
    if isinstance(known, HSMError) and (asked := asked_approval(known)) is not None:
        return _accepted(asked)
    return problem_parts(known, exchange.request_id)


def note_failure(
    app: web.Application, error: Exception, exchange: Exchange
) -> HSMError | RequestRefusedError:
    """Return the public details of an error, and set its code."""
    match error:
        case HSMError():
            if status_of(type(error)) >= 500:
                app[LOGGER].warning(
                    "unavailable", request_id=exchange.request_id, code=error.code
                )
            known: HSMError | RequestRefusedError = error
        case RequestRefusedError():
            known = error
        case web.HTTPException():
            known = _refusal(error)
        case _:
            known = _unexpected(app, error, exchange)
    exchange.code = known.code
    return known


def _accepted(asked: ApprovalInfo) -> Parts:
    """Return the response to an operation that needs approval first."""
    location = f"{API_PREFIX}/approvals/{asked.approval_id}"
    return Parts(
        HTTPStatus.ACCEPTED,
        "application/json",
        wire.encode_json(asked),
        {"Location": location},
    )


def _refusal(error: web.HTTPException) -> RequestRefusedError:
    if error.status == HTTPStatus.NOT_FOUND:
        return RequestRefusedError("route_not_found", "No such route.")
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = error.headers.get("Allow", "")
        words = f"Method not allowed. This route accepts {allowed}."
        return RequestRefusedError("method_not_allowed", words, {"Allow": allowed})
    return RequestRefusedError("internal", "The request cannot be answered.")


def _unexpected(
    app: web.Application, error: Exception, exchange: Exchange
) -> RequestRefusedError:
    """Log an unexpected error, and return a response without details."""
    app[METRICS].count_unexpected()
    app[LOGGER].error(
        "unexpected",
        request_id=exchange.request_id,
        operation=exchange.operation,
        error=type(error).__name__,
        place=location(error.__traceback__),
    )
    return RequestRefusedError("internal", "The request failed.")


REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OWN: Final = ("Cache-Control", "Content-Security-Policy", "Referrer-Policy")
"""Headers that a response may override."""


def request_id_of(request: web.Request) -> str:
    """Return the request ID that a client sent, if valid, or a new one."""
    given = request.headers.getall(REQUEST_ID_HEADER, [])
    usable = len(given) == 1 and REQUEST_ID.fullmatch(given[0]) is not None
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
        note_end(
            request.app,
            exchange,
            method=request.method if request.method.isalpha() else "?",
            parent=parent_of(request.headers.getall("traceparent", [])),
            status=response.status if response is not None else 0,
            seconds=time.perf_counter() - started,
        )


def note_end(
    app: web.Application,
    exchange: Exchange,
    *,
    method: str,
    parent: str,
    status: int,
    seconds: float,
) -> None:
    """Count and log a request, and record its span."""
    app[METRICS].count_request(exchange.operation, exchange.code, seconds)
    if exchange.is_turned_away:
        # A flood must not fill the disk with log lines; metrics count it.
        return
    ended_ns = time.time_ns()
    done = Done(
        operation=exchange.operation,
        code=exchange.code,
        status=status,
        method=method,
        request_id=exchange.request_id,
        parent=parent,
        began_ns=ended_ns - int(seconds * 1e9),
        ended_ns=ended_ns,
    )
    trace_id = app[TRACING].note(done)
    app[LOGGER].info(
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
    if exchange.principal:
        exchange.revision = request.app[VAULT].revision
    note_caller(request.app, address, shown, exchange)
    return response


def note_caller(
    app: web.Application, address: str, shown: bytes, exchange: Exchange
) -> None:
    """Tell the address limits how a request's credentials were judged."""
    guard = app[GUARD]
    if exchange.code == AuthenticationError.code:
        guard.note_failure(address, shown)
    elif exchange.principal:
        guard.note_good(shown, exchange.principal)
    if exchange.quota is None and app[SETTINGS].rates.per_second:
        guard.note_stray(shown)


async def set_common_headers(
    request: web.Request, response: web.StreamResponse
) -> None:
    """Set the headers of every response; a signal of the application."""
    own = {name: response.headers[name] for name in _OWN if name in response.headers}
    response.headers.update({**COMMON_HEADERS, **own})
    exchange = exchange_of(request)
    if exchange is not None and exchange.quota is not None:
        response.headers.update(exchange.quota.headers)
    if exchange is not None:
        if exchange.revision:
            response.headers[REVISION_HEADER] = str(exchange.revision)
        response.headers[REQUEST_ID_HEADER] = exchange.request_id


_API: Final = f"{API_PREFIX}/"
_METHODS: Final = frozenset(kind.route.method for kind in OPERATIONS)


def turn_away(request: web.Request, app: web.Application) -> bytes | None:
    """
    Return the complete response to a request from a locked-out address, and count it.

    Args:
        request: The request, before routing.

        app: Application with the limits.

    Returns:
        None if the request takes the normal path, which may reject it too.
    """
    began = time.perf_counter()
    guard = app[GUARD]
    quota = guard.refusal(source_of(request, app[SOURCES]))
    if quota is None or not _is_plain(request) or app[IN_FLIGHT].is_draining:
        return None
    if guard.is_good(shown_by(request)):
        return None
    metrics = app[METRICS]
    metrics.count_blocked(quota.policy)
    exchange = Exchange(request_id_of(request), quota=quota)
    answer = problem_parts(quota.error(), exchange.request_id).complete(exchange)
    seconds = time.perf_counter() - began
    metrics.count_request("none", RateLimitedError.code, seconds)
    return answer


def _is_plain(request: web.Request) -> bool:
    """Return whether a request has the usual form, as most of a flood has."""
    return (
        request.version == HttpVersion11
        and request.method in _METHODS
        and request.raw_path.startswith(_API)
        and request.keep_alive
        and "Expect" not in request.headers
        and not flaw_of(request)
    )
