# SPDX-License-Identifier: MIT
"""Conversion of exceptions to problem documents and audit notes."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeAlias

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import HSMError
from hsm_core.operations import ApprovalInfo
from hsm_core.rest import API_PREFIX
from hsm_core.wire import asked_approval
from hsm_server.http.app_keys import LOGGER, METRICS, Exchange
from hsm_server.http.problems import (
    RequestRefusedError,
    problem_response,
    status_of,
)
from hsm_server.observability.logs import location

FailurePages: TypeAlias = Callable[
    [web.Request, HSMError | RequestRefusedError, Exchange], web.Response | None
]
"""Renders failures for browsers; returns None for programs."""

FAILURE_PAGES: Final[web.AppKey[FailurePages]] = web.AppKey("FAILURE_PAGES")
"""Renderer of failures, if there is a console."""

_CODES: Final = {
    404: "route_not_found",
    405: "method_not_allowed",
}


def answer_failure(
    request: web.Request, error: Exception, exchange: Exchange
) -> web.Response:
    """Return the answer to a request that failed for any reason, and note its code."""
    known = note_failure(request, error, exchange)
    pages = request.app.get(FAILURE_PAGES)
    if pages is not None and (page := pages(request, known, exchange)) is not None:
        return page
    if isinstance(known, HSMError) and (asked := asked_approval(known)) is not None:
        return _accepted(asked)
    return problem_response(known, exchange.request_id)


def note_failure(
    request: web.Request, error: Exception, exchange: Exchange
) -> HSMError | RequestRefusedError:
    """Return the public details of an error, and set its code."""
    match error:
        case HSMError():
            if status_of(type(error)) >= 500:
                request.app[LOGGER].warning(
                    "unavailable", request_id=exchange.request_id, code=error.code
                )
            known: HSMError | RequestRefusedError = error
        case RequestRefusedError():
            known = error
        case web.HTTPException():
            known = _refusal(error)
        case _:
            known = _unexpected(request, error, exchange)
    exchange.code = known.code
    return known


def _accepted(asked: ApprovalInfo) -> web.Response:
    """Answer what other people must agree to first: no problem, but not done yet."""
    return web.Response(
        body=wire.encode_json(asked),
        status=HTTPStatus.ACCEPTED,
        content_type="application/json",
        headers={"Location": f"{API_PREFIX}/approvals/{asked.approval_id}"},
    )


def _refusal(error: web.HTTPException) -> RequestRefusedError:
    code = _CODES.get(error.status, "internal")
    match code:
        case "route_not_found":
            return RequestRefusedError(code, "No such route.")
        case "method_not_allowed":
            allowed = error.headers.get("Allow", "")
            return RequestRefusedError(
                code,
                f"Method not allowed. This route accepts {allowed}.",
                {"Allow": allowed},
            )
        case _:
            return RequestRefusedError(code, "The request cannot be answered.")


def _unexpected(
    request: web.Request, error: Exception, exchange: Exchange
) -> RequestRefusedError:
    """Answer 500 and say nothing: who asked can't help it, and may be an attacker."""
    request.app[METRICS].count_unexpected()
    request.app[LOGGER].error(
        "unexpected",
        request_id=exchange.request_id,
        operation=exchange.operation,
        error=type(error).__name__,
        place=location(error.__traceback__),
    )
    return RequestRefusedError("internal", "The request failed.")
