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
    begin_operation,
)
from hsm_server.observability.metrics import METRICS_CONTENT_TYPE

_LONGEST_CACHE_SECONDS: Final = 300


def add_service_routes(router: web.UrlDispatcher, document: bytes) -> None:
    """
    Add the open pages.

    Args:
        router: Where to add them.

        document: The OpenAPI document, JSON.
    """

    async def openapi(request: web.Request) -> web.Response:
        _begin(request, "openapi")
        return web.Response(body=document, content_type="application/json")

    _add(router, "/healthz", _healthz)
    _add(router, "/livez", _livez)
    _add(router, "/readyz", _readyz)
    _add(router, "/.well-known/jwks.json", _token_keys)
    _add(router, f"{API_PREFIX}/openapi.json", openapi)


def add_metrics_route(router: web.UrlDispatcher) -> None:
    """Add the page of metrics, which may ask for a token."""
    _add(router, "/metrics", _metrics)


def _add(
    router: web.UrlDispatcher,
    path: str,
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> None:
    add_route(router, "GET", path, handler)


def _begin(request: web.Request, name: str) -> None:
    begin_operation(request, name)
    if request.query_string:
        raise InvalidInputError(
            "This endpoint accepts no query parameters.", field="query"
        )
    if request.body_exists:
        raise MalformedError("A GET request must not have a body.")


async def _healthz(request: web.Request) -> web.Response:
    _begin(request, "healthz")
    health, serving = await request.app[HEALTH].check()
    return _show(health, serving)


async def _livez(request: web.Request) -> web.Response:
    _begin(request, "livez")
    return _show(request.app[HEALTH].alive(), True)


async def _readyz(request: web.Request) -> web.Response:
    _begin(request, "readyz")
    health, serving = await request.app[HEALTH].check_ready()
    return _show(health, serving)


def _show(health: Health, is_good: bool) -> web.Response:
    return web.Response(
        body=wire.encode_json(health),
        status=200 if is_good else 503,
        content_type="application/json",
    )


async def _metrics(request: web.Request) -> web.Response:
    _begin(request, "metrics")
    _check_token(request)
    await request.app[HEALTH].refresh()
    return web.Response(
        body=request.app[METRICS].exposition(),
        headers={"Content-Type": METRICS_CONTENT_TYPE},
    )


def _check_token(request: web.Request) -> None:
    """
    Raise unless the request shows the token of metrics, where there is one.

    Raises:
        AuthenticationError: It doesn't.
    """
    wanted = request.app[SETTINGS].metrics.token_sha256
    shown = hashlib.sha256(visitor_of(request).credential.encode()).hexdigest()
    if wanted and not hmac.compare_digest(wanted, shown):
        raise AuthenticationError


async def _token_keys(request: web.Request) -> web.Response:
    _begin(request, "token_keys")
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
