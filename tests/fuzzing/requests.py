# SPDX-License-Identifier: MIT
"""What strangers send over HTTP: bodies, queries, header fields, forms, cursors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final, cast

from aiohttp import ETag, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD

from hsm_core import operations as ops
from hsm_core import wire
from hsm_core.algorithms import Algorithm
from hsm_core.errors import HSMError
from hsm_core.model import Role
from hsm_core.testing import caller, memory_hsm
from hsm_server.config.settings import HTTPLimits, ProxyHeader, ProxySettings
from hsm_server.http.problems import RequestRefusedError
from hsm_server.http.requests import (
    RequestReader,
    expected_generation,
    flaw_of,
    is_known,
    last_event_id,
)
from hsm_server.limits.guard import peer_of
from hsm_server.limits.proxies import SourceAddresses
from hsm_server.observability.tracing import parent_of, trace_id_of
from hsm_server.ui.forms import MULTIPART, read_multipart
from tests.fuzzing.stored_forms import NothingReadError, wanted
from tests.fuzzing.target import Reader, Target
from tests.server.support import b64

_REFUSALS: Final = (
    HSMError,
    RequestRefusedError,
    HttpProcessingError,
    NothingReadError,
)
_PROXIES: Final = ("10.0.0.0/8", "2001:db8:ffff::/48")
_MOST: Final = 64 * 1024
_ID: Final = "00000000-0000-4000-8000-000000000001"


def targets() -> list[Target]:
    """Return a target for each part of a request."""
    return [
        _bodies(),
        _queries(),
        _heads(),
        _proxy_header(
            ProxyHeader.FORWARDED, b'for=192.0.2.1;proto=https, For="[::1]:2"'
        ),
        _proxy_header(ProxyHeader.X_FORWARDED_FOR, b"203.0.113.9, 192.0.2.1:80"),
        _form(),
        _cursors(),
    ]


def _bodies() -> Target:
    """Return the target of JSON bodies; the first byte chooses the operation."""
    kinds = [kind for kind in ops.OPERATIONS if kind.route.has_body]
    bodies: dict[type[ops.Operation[Any]], object] = {
        ops.CreateKey: {"algorithm": "EC-P256", "name": "k", "tags": ["a"]},
        ops.Sign: {"message": b64(b"m"), "hash": "SHA-256"},
        ops.SignBatch: {"items": [{"message": b64(b"m")}, {"message": b64(b"n")}]},
        ops.ImportKey: {
            "algorithm": "AES-256-GCM",
            "wrapping_key_id": "w",
            "wrapped": b64(bytes(40)),
        },
        ops.ExplainPolicy: {"operation": "Sign", "principal": "ann"},
        ops.Approve: {"digest": "ab" * 32},
    }
    seeds = []
    for kind, body in bodies.items():
        number = kinds.index(kind)
        seeds.append(bytes([number]) + json.dumps(body).encode())

    def read(data: bytes) -> object:
        kind = kinds[data[0] % len(kinds)] if data else kinds[0]
        path = dict.fromkeys(kind.route.path_fields, _ID)
        return wire.decode_operation(data[1:], kind, path=path, payload_limit=_MOST)

    return Target(name="request-body", readers=(read,), seeds=seeds)


class _Request(web.Request):
    """A request whose path was routed already."""

    @property
    def match_info(self) -> Any:
        """Return the one field that paths have here."""
        return {"key_id": "release"}


class _Protocol(BaseProtocol):
    """As much of a connection as a request asks for."""

    ssl_context = None
    peername = ("192.0.2.1", 4711)
    sockname = None


def _parsed(data: bytes) -> web.Request:
    """
    Return the request that these bytes are to the HTTP parser of the server.

    Raises:
        HttpProcessingError: They are none; that is the parser's to say.
    """
    loop = asyncio.get_running_loop()
    protocol = _Protocol(loop)
    parser = HttpRequestParser(protocol, loop, 2**16)
    messages, _, _ = parser.feed_data(data)
    if not messages:
        raise NothingReadError
    message, payload = messages[0]
    if payload is not EMPTY_PAYLOAD:
        payload.feed_eof()
    nobody = cast(Any, None)
    return _Request(message, payload, cast(Any, protocol), nobody, nobody, loop)


def _on_loop(read: Callable[[bytes], Awaitable[object]]) -> Reader:
    async def run(data: bytes) -> object:
        return await read(data)

    return lambda data: asyncio.run(run(data))


@cache
def _reader_for(kind: type[ops.Operation[Any]]) -> RequestReader:
    return RequestReader(kind, HTTPLimits())


def _queries() -> Target:
    kinds = (ops.ListKeys, ops.ListAuditEvents, ops.ListApprovals)

    def reader_of(kind: type[ops.Operation[Any]]) -> Reader:
        async def read(data: bytes) -> object:
            request = _parsed(b"GET /x?%b HTTP/1.1\r\nHost: a\r\n\r\n" % data)
            return await _reader_for(kind).read(request)

        return _on_loop(read)

    return Target(
        name="request-query",
        readers=[reader_of(kind) for kind in kinds],
        seeds=(
            b"per_page=5&tags=a,b&search=x%20y&state=active",
            b"start_seq=3&limit=10&ascending=true",
            b"states=pending&cursor=1.x",
        ),
        refusals=_REFUSALS,
        longest=1024,
    )


def _heads() -> Target:
    """Return the target of header fields; what HTTP itself refuses never gets here."""
    tag = ETag("3-" + "ab" * 16)

    async def ask(data: bytes) -> object:
        request = _parsed(b"GET /x HTTP/1.1\r\n%b\r\n\r\n" % data)
        parent = parent_of(request.headers.getall("traceparent", []))
        told = (flaw_of(request), trace_id_of(parent), last_event_id(request))
        return told, is_known(request, tag)

    async def change(data: bytes) -> object:
        request = _parsed(b"POST /x HTTP/1.1\r\n%b\r\n\r\n" % data)
        return expected_generation(request, ops.RotateKey)

    async def send(data: bytes) -> object:
        head = b"POST /x HTTP/1.1\r\nContent-Length: 14\r\n"
        request = _parsed(head + data + b'\r\n\r\n{"message":""}')
        return await _reader_for(ops.Sign).read(request)

    return Target(
        name="request-head",
        readers=[_on_loop(read) for read in (ask, change, send)],
        seeds=(
            b'Host: a\r\nIf-Match: "3"',
            b'Host: a\r\nIf-None-Match: "3-%b", W/"x", *' % (b"ab" * 16),
            b"Host: a:80\r\ntraceparent: 00-%b-%b-01" % (b"a1" * 16, b"b2" * 8),
            b"Host: [::1]\r\nLast-Event-ID: 5",
            b'Host: a\r\nContent-Type: application/json; charset="utf-8"',
            b"Host: a\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Encoding: identity",
        ),
        refusals=_REFUSALS,
        longest=1024,
    )


def _proxy_header(header: ProxyHeader, seed: bytes) -> Target:
    sources = SourceAddresses(ProxySettings(networks=_PROXIES, header=header))

    def read(data: bytes) -> object:
        said = data.decode("utf-8", "surrogateescape").split("\n")
        source = sources.source_of("10.0.0.1", said)
        # It goes into the log, the trail and the accounts of addresses.
        assert source.isascii()
        assert peer_of(source)
        return wanted(source != "10.0.0.1")

    return Target(
        name=header.value.lower(),
        readers=(read,),
        seeds=(seed,),
        refusals=(NothingReadError,),
    )


def _form() -> Target:
    boundary = "----xyz"
    kind = f"{MULTIPART}; boundary={boundary}"
    head = b'Content-Disposition: form-data; name="'
    parts = (
        head + b'form_token"\r\n\r\nabc',
        head + b'file"; filename="a.pem"\r\nContent-Type: text/plain\r\n\r\ndata',
    )
    between = b"\r\n--" + boundary.encode()
    whole = b"--" + boundary.encode() + b"\r\n"
    whole += (between + b"\r\n").join(parts) + between + b"--\r\n"

    loop = asyncio.new_event_loop()

    def read(content_type: str, data: bytes) -> object:
        return loop.run_until_complete(read_multipart(content_type, data))

    return Target(
        name="form-parts",
        readers=(
            lambda data: read(kind, data),
            lambda data: read(f"{MULTIPART}; {data.decode('latin-1')}", whole),
        ),
        seeds=(whole, f"boundary={boundary}".encode()),
        refusals=_REFUSALS,
    )


def _cursors() -> Target:
    """Return the target of what leads to the next page of a listing."""
    opened = memory_hsm()
    hsm = opened.act_as(caller(*Role))
    for number in range(3):
        hsm.execute(ops.CreateKey(algorithm=Algorithm.ED25519, name=f"k{number}"))
    cursor = hsm.execute(ops.ListKeys(per_page=1)).next_cursor

    def reader_of(ask: Callable[[str], ops.Operation[Any]]) -> Reader:
        return lambda data: hsm.execute(ask(data.decode("latin-1")))

    return Target(
        name="cursor",
        readers=(
            reader_of(lambda text: ops.ListKeys(per_page=1, cursor=text)),
            reader_of(lambda text: ops.ListApprovals(cursor=text)),
        ),
        seeds=(cursor.encode(), f"1.{_ID}".encode()),
        longest=160,
    )
