# SPDX-License-Identifier: MIT
"""
Early refusal: prebuilt 429 responses, before routing.

Under a flood full request handling is too expensive. The response to a locked-out
address is written in one piece, without route or handler. Its bytes and its metrics are
those of the normal path.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from typing import Final

from aiohttp import HttpVersion11, web

from hsm_core import wire
from hsm_core.errors import RateLimitedError
from hsm_core.rest import API_PREFIX, ROUTES
from hsm_server.http.app_keys import GUARD, IN_FLIGHT, METRICS, SOURCES
from hsm_server.http.middleware import (
    COMMON_HEADERS,
    REQUEST_ID_HEADER,
    request_id_of,
)
from hsm_server.http.problems import PROBLEM_TYPE, headers_of, problem_of
from hsm_server.http.request_checks import flaw_of
from hsm_server.http.visitors import shown_by, source_of
from hsm_server.limits.buckets import Quota

_API: Final = f"{API_PREFIX}/"
_STATUS: Final = "HTTP/1.1 429 Too Many Requests\r\n"
_METHODS: Final = frozenset(route.method for route in ROUTES)


def turn_away(request: web.Request, app: web.Application) -> bytes | None:
    """
    Return the whole answer to a request that is not looked at, and count it.

    Args:
        request: As it was read; no route is known of it.

        app: Whose limits are asked.

    Returns:
        None where it is to take the longer way, which may refuse it as well.
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
    answer = _answer(quota, request_id_of(request))
    seconds = time.perf_counter() - began
    metrics.count_request("none", RateLimitedError.code, seconds)
    return answer


def _is_plain(request: web.Request) -> bool:
    """Return whether a program asks in the plainest form; most of a flood does."""
    return (
        request.version == HttpVersion11
        and request.method in _METHODS
        and request.raw_path.startswith(_API)
        and request.keep_alive
        and "Expect" not in request.headers
        and not flaw_of(request)
    )


def _answer(quota: Quota, request_id: str) -> bytes:
    error = quota.error()
    problem = problem_of(error, request_id)
    body = wire.encode_json(problem)
    fields = {
        "Content-Type": PROBLEM_TYPE,
        **headers_of(error, problem),
        **COMMON_HEADERS,
        **quota.headers,
        REQUEST_ID_HEADER: request_id,
        "Content-Length": str(len(body)),
        "Date": _date(int(time.time())),
    }
    lines = [f"{name}: {value}\r\n" for name, value in fields.items()]
    return f"{_STATUS}{''.join(lines)}\r\n".encode("latin-1") + body


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """Return an instant as HTTP writes it (RFC 9110, section 5.6.7)."""
    return formatdate(second, usegmt=True)
