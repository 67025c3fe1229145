# SPDX-License-Identifier: MIT
"""Endpoints about the service itself: health, metrics and the OpenAPI document."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import ETag, web

from hsm_core import wire
from hsm_core.errors import AuthenticationError, InvalidInputError, MalformedError
from hsm_core.rest import API_PREFIX
from hsm_server.http.credentials import visitor_of
from hsm_server.http.requests import add_route
from hsm_server.http.state import (
    HEALTH,
    METRICS,
    SETTINGS,
    VAULT,
    Health,
    HealthCheck,
    begin_operation,
)
from hsm_server.observability.metrics import METRICS_CONTENT_TYPE

_LONGEST_CACHE_SECONDS: Final = 300
_Answer = Callable[[web.Request], Awaitable[web.Response]]


def add_service_routes(router: web.UrlDispatcher, document: bytes) -> None:
    """
    Add the open pages.

    Args:
        router: Where to add them.

        document: The OpenAPI document, JSON.
    """

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    _add(router, "/healthz", "healthz", _health_page(HealthCheck.check))
    _add(router, "/livez", "livez", _health_page(HealthCheck.check_alive))
    _add(router, "/readyz", "readyz", _health_page(HealthCheck.check_ready))
    _add(router, "/.well-known/jwks.json", "token_keys", _token_keys)
    _add(router, f"{API_PREFIX}/openapi.json", "openapi", openapi)


def add_metrics_route(router: web.UrlDispatcher) -> None:
    """Add the page of metrics, which may ask for a token."""
    _add(router, "/metrics", "metrics", _metrics)


def _add(router: web.UrlDispatcher, path: str, name: str, answer: _Answer) -> None:
    async def handle(request: web.Request) -> web.Response:
        begin_operation(request, name)
        if request.query_string:
            raise InvalidInputError(
                "This endpoint accepts no query parameters.", field="query"
            )
        if request.body_exists:
            raise MalformedError("A GET request must not have a body.")
        return await answer(request)

    add_route(router, "GET", path, handle)


def _health_page(
    check: Callable[[HealthCheck], Awaitable[tuple[Health, bool]]],
) -> _Answer:
    async def answer(request: web.Request) -> web.Response:
        health, is_good = await check(request.app[HEALTH])
        return web.Response(
            body=wire.encode_json(health),
            status=200 if is_good else 503,
            content_type="application/json",
        )

    return answer


async def _metrics(request: web.Request) -> web.Response:
    """
    Return the metrics, to those who show their token, if there is one.

    Raises:
        AuthenticationError: The request does not show it.
    """
    wanted = request.app[SETTINGS].metrics.token_sha256
    shown = hashlib.sha256(visitor_of(request).credential.encode()).hexdigest()
    if wanted and not hmac.compare_digest(wanted, shown):
        raise AuthenticationError
    await request.app[HEALTH].refresh()
    return web.Response(
        body=request.app[METRICS].exposition(),
        headers={"Content-Type": METRICS_CONTENT_TYPE},
    )


async def _token_keys(request: web.Request) -> web.Response:
    body = await request.app[VAULT].token_keys()
    tag = hashlib.sha256(body).hexdigest()[:32]
    seconds = int(request.app[SETTINGS].token_config.reload_seconds)
    known = {shown.value for shown in request.if_none_match or ()}
    answer = web.Response(
        body=b"" if tag in known else body,
        status=304 if tag in known else 200,
        content_type="application/jwk-set+json",
        headers={
            "Cache-Control": f"public, max-age={min(seconds, _LONGEST_CACHE_SECONDS)}"
        },
    )
    answer.etag = ETag(tag)
    return answer
