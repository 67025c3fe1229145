# SPDX-License-Identifier: MIT
"""REST API: one handler per operation, health, metrics and the OpenAPI document."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import re
from collections.abc import Awaitable, Callable
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import ETag, web

from hsm_core import wire
from hsm_core.errors import (
    AuthenticationError,
    HSMError,
    InvalidInputError,
    MalformedError,
)
from hsm_core.operations import OPERATIONS, Operation
from hsm_core.rest import API_PREFIX, APPROVAL_HEADER, RESULT_HEADER
from hsm_server.api.live_view import LIVE_VIEW, answer_live_view
from hsm_server.config.settings import HTTPLimits
from hsm_server.http.credentials import api_visitor_of, visitor_of
from hsm_server.http.problems import RequestRefusedError
from hsm_server.http.requests import (
    BYTES,
    EVENTS,
    JSON,
    SAFE_METHODS,
    RequestReader,
    add_route,
    check_claims,
    expected_generation,
    header_given_once,
    is_known,
    key_tag,
)
from hsm_server.http.responses import bytes_response
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
from hsm_server.vault.access import Known, Visitor

_MAX_REFUSED_KEY: Final = 64
_APPROVAL_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def add_api_routes(router: web.UrlDispatcher, limits: HTTPLimits) -> None:
    """Add a route for every operation."""
    for kind in OPERATIONS:
        path = API_PREFIX + kind.route.path
        add_route(router, kind.route.method, path, _handler(kind, limits))


def _handler(
    kind: type[Operation[Any]], limits: HTTPLimits
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    reader, route, name = RequestReader(kind, limits), kind.route, kind.__name__

    async def handle(request: web.Request) -> web.StreamResponse:
        if route.events and _wants(request, EVENTS):
            return await _answer_live(request, reader)
        exchange = begin_operation(request, name)
        visitor, vault = api_visitor_of(request), request.app[VAULT]
        if not request.content.is_eof():
            # Nobody sends us much before we know that they may.
            await vault.greet(visitor, known=exchange.know)
        operation, options = await _read(request, reader, kind, visitor, exchange.know)
        execution = vault.execute(
            visitor, operation, known=exchange.know, told=exchange.limit, **options
        )
        del operation  # Its payload is not needed while the vault computes.
        result = await execution
        raw = bool(route.raw_response) and _wants(request, BYTES)
        answer = _encode(kind, result, raw=raw)
        return _not_modified(request, answer) or answer

    return handle


async def _answer_live(
    request: web.Request, reader: RequestReader
) -> web.StreamResponse:
    exchange = begin_operation(request, LIVE_VIEW)
    visitor = api_visitor_of(request)
    try:
        operation = reader.read_view(request)
        check_claims(request)
    except HSMError:
        await request.app[VAULT].greet(visitor, known=exchange.know)
        raise
    return await answer_live_view(request, visitor, operation, exchange)


async def _read(
    request: web.Request,
    reader: RequestReader,
    kind: type[Operation[Any]],
    visitor: Visitor,
    known: Known,
) -> tuple[Operation[Any], dict[str, Any]]:
    """Read an operation and its options; a refusal that names a key is recorded."""
    vault = request.app[VAULT]
    try:
        operation = await reader.read(request)
        check_claims(request)
        return operation, {
            "idempotency_key": header_given_once(
                request, "Idempotency-Key", "idempotency_key"
            ),
            "approval_id": _approval_id(request),
            "expected_generation": expected_generation(request, kind),
        }
    except (HSMError, RequestRefusedError) as error:
        if "key_id" not in kind.route.path_fields:
            # An unauthenticated client gets no details of the fault.
            await vault.greet(visitor, known=known)
            raise
        await vault.refuse(
            visitor,
            error.code,
            kind=kind.__name__,
            key_id=request.match_info["key_id"][:_MAX_REFUSED_KEY],
            known=known,
        )
        raise


def _approval_id(request: web.Request) -> str:
    given = header_given_once(request, APPROVAL_HEADER, "approval_id")
    if given is not None and not _APPROVAL_ID.match(given):
        raise InvalidInputError(
            f"{APPROVAL_HEADER} must be the ID of an approval (UUID).",
            field="approval_id",
        )
    return given or ""


def _wants(request: web.Request, form: str) -> bool:
    """Return whether the answer is to have another form than JSON: only if said so."""
    qualities: dict[str, float] = {}
    for part in ",".join(request.headers.getall("Accept", [])).lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        qualities[kind] = next(map(_quality, parameters), 1.0)
    wanted = qualities.get(form, 0.0)
    return wanted > 0 and wanted >= qualities.get(JSON, 0.0)


def _quality(parameter: str) -> float:
    try:
        quality = float(parameter.removeprefix("q="))
    except ValueError:
        return 0.0
    return max(0.0, min(quality, 1.0)) if math.isfinite(quality) else 0.0


def _encode(kind: type[Operation[Any]], result: Any, *, raw: bool) -> web.Response:
    headers = {}
    route = kind.route
    if route.location:
        fields = {name: getattr(result, name) for name in result.__struct_fields__}
        headers["Location"] = API_PREFIX + route.location.format_map(fields)
    if not raw:
        body = wire.encode_json(result)
        answer = web.Response(
            body=body, status=route.success, content_type=JSON, headers=headers
        )
        answer.etag = key_tag(kind, result, body)
        return answer
    fields = msgspec.to_builtins(result, builtin_types=(bytes,))
    bare = fields.pop(route.raw_response)
    headers[RESULT_HEADER] = json.dumps(fields, separators=(",", ":"))
    return bytes_response(
        bare, status=route.success, content_type=BYTES, headers=headers
    )


def _not_modified(request: web.Request, answer: web.Response) -> web.Response | None:
    """Return a 304 response if the client's ETag matches, else None."""
    tag = answer.etag
    is_asked = request.method in SAFE_METHODS and tag is not None
    if tag is None or not is_asked or not is_known(request, tag):
        return None
    short = web.Response(status=HTTPStatus.NOT_MODIFIED)
    short.etag = tag
    return short


_LONGEST_CACHE_SECONDS: Final = 300
_Answer = Callable[[web.Request], Awaitable[web.Response]]


def add_service_routes(
    router: web.UrlDispatcher, document: Callable[[], bytes]
) -> None:
    """
    Add the open pages.

    Args:
        router: Where to add them.

        document: Returns the OpenAPI document, JSON; called once, when it is asked for,
            because it takes a tenth of a second.
    """
    once = cache(document)

    async def openapi(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(once)
        return web.Response(body=body, content_type="application/json")

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
    tag = ETag(hashlib.sha256(body).hexdigest()[:32])
    seconds = int(request.app[SETTINGS].token_config.reload_seconds)
    is_same = is_known(request, tag)
    answer = web.Response(
        body=b"" if is_same else body,
        status=304 if is_same else 200,
        content_type="application/jwk-set+json",
        headers={
            "Cache-Control": f"public, max-age={min(seconds, _LONGEST_CACHE_SECONDS)}"
        },
    )
    answer.etag = tag
    return answer
