# SPDX-License-Identifier: MIT
"""
Requests: smuggling checks, bodies, entity tags, and conversion to operations.

aiohttp's parser already rejects two lengths, a length with chunks, folded lines, bare
line feeds, blanks before a colon and similar requests (RFC 9112, section 11.2).

The entity tag of a key is its generation. In descriptions a digest of the content
follows, because a use count changes the content but not the key. ``If-Match`` compares
the generation only (RFC 9110, sections 8.8 and 13).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from io import BytesIO
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlsplit

import msgspec
from aiohttp import ETag, HttpVersion10, HttpVersion11, web

from hsm_core import wire
from hsm_core.errors import (
    InvalidInputError,
    MalformedError,
    OverloadedError,
    PayloadTooLargeError,
    PreconditionFailedError,
)
from hsm_core.limits import CIPHERTEXT_OVERHEAD_BYTES
from hsm_core.model import Integrity, KeyInfo
from hsm_core.operations import (
    OPERATIONS,
    DescribeKey,
    Effect,
    ListAuditEvents,
    Operation,
)
from hsm_core.rest import (
    INTERFACE_HEADER,
    REVISION_HEADER,
    is_interface_claim,
    parse_revision,
)
from hsm_server.config.settings import HTTPLimits
from hsm_server.http.problems import RequestRefusedError, problem_response
from hsm_server.http.state import METRICS, start_exchange

_MOST_QUERY_FIELDS: Final = 64
_READ_BYTES: Final = 64 * 1024
"""At once; for more than 128 KiB the C library maps fresh pages on each read."""


def query_pairs(query: str) -> list[tuple[str, str]]:
    """
    Return the names and values of a query, in order, with repetitions.

    Args:
        query: The query, percent-encoded.

    Raises:
        MalformedError: It is malformed, or has more than 64 fields.
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
    Return the body of a request; who expects 100 Continue gets it before.

    Args:
        request: The request.

        what: Name of the body in errors, one word.

        most_bytes: Maximum length.

        seconds: Time limit for its arrival.

    Raises:
        PayloadTooLargeError: It is too long; the rest is not read.
        MalformedError: It is incomplete.
        RequestRefusedError: It did not arrive in time; the connection closes.
        OverloadedError: Meanwhile the rules for client certificates changed, so the
            client may be accepted no more; the connection closes.
    """
    length = request.content_length
    if length is not None and length > most_bytes:
        raise PayloadTooLargeError(what, actual=length, maximum=most_bytes)
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = BytesIO()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.content.iter_chunked(_READ_BYTES):
                body.write(chunk)
                if body.tell() > most_bytes:
                    raise PayloadTooLargeError(
                        what, actual=body.tell(), maximum=most_bytes
                    )
    except TimeoutError:
        raise RequestRefusedError(
            "request_timeout",
            f"The {what} did not arrive in time.",
            {"Connection": "close"},
        ) from None
    except (web.RequestPayloadError, ConnectionError):
        raise MalformedError(f"The {what} ended early.") from None
    if getattr(request.protocol, "is_retired", False):
        raise OverloadedError(
            "The connection ended while the request arrived. Send it again."
        )
    return body.getvalue()  # hands its buffer over, without a copy


SAFE_METHODS: Final = ("GET", "HEAD")
"""Methods that only read (RFC 9110, section 9.2.1)."""

_OURS: Final = re.compile(r"([1-9][0-9]{0,14})(?:-[0-9a-f]{32})?\Z")
_TAG: Final = re.compile(r'(?P<weak>W/)?"(?P<value>[!#-~\x80-\xff]*)"\Z')


def takes_condition(kind: type[Operation[Any]]) -> bool:
    """Return whether an operation changes a key that is there."""
    is_change = kind.effect is Effect.MUTATION
    return is_change and "key_id" in kind.route.path_fields


def key_tag(kind: type[Operation[Any]], result: object, body: bytes) -> ETag | None:
    """Return the entity tag of a response about one key; None if it has none."""
    if not isinstance(result, KeyInfo) or result.integrity is not Integrity.OK:
        return None
    if kind is not DescribeKey:
        return ETag(str(result.generation))
    return ETag(f"{result.generation}-{hashlib.sha256(body).hexdigest()[:32]}")


def is_known(request: web.Request, tag: ETag) -> bool:
    """Return whether ``If-None-Match`` of a GET contains a tag."""
    return any(known.value in {tag.value, "*"} for known in request.if_none_match or ())


def expected_generation(request: web.Request, kind: type[Operation[Any]]) -> int:
    """
    Return the generation that ``If-Match`` requires; 0 for any.

    Raises:
        PreconditionFailedError: The tag is weak or not a key's: it matches nothing.
        InvalidInputError: It is malformed or has several tags, or the route supports no
            condition.
    """
    if request.method not in SAFE_METHODS and "If-None-Match" in request.headers:
        raise InvalidInputError(
            "If-None-Match is allowed for GET and HEAD only.", field="If-None-Match"
        )
    given = request.headers.getall("If-Match", [])
    if not given:
        return 0
    if not takes_condition(kind):
        raise InvalidInputError(
            "If-Match is allowed only for changes to an existing key.", field="If-Match"
        )
    if given == ["*"]:
        return 0
    tag = _TAG.match(given[0])
    if len(given) > 1 or tag is None:
        raise InvalidInputError(
            "If-Match must be one entity tag, or *.", field="If-Match"
        )
    ours = _OURS.match(tag["value"])
    if ours is None or tag["weak"]:
        raise PreconditionFailedError
    return int(ours[1])


JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream"

ViewPlace: TypeAlias = Mapping[str, int | str]
"""``start_seq`` of a view of one log, or ``cursor`` of one of several."""

_OF_PAGES: Final = frozenset({"limit", "ascending", "follow"})
"""Parameters without meaning for an endless view."""

_EVENT_ID: Final = re.compile(r"(0|[1-9][0-9]{0,15})\Z")
_CURSOR: Final = re.compile(r"[0-9a-f,]{33,4096}\Z")
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,999})\Z")
_BOOLEANS: Final = {"true": True, "false": False}


class RequestReader:
    """
    Reader of the requests of one operation.

    Args:
        kind: The operation.

        limits: Sizes and times.
    """

    def __init__(self, kind: type[Operation[Any]], limits: HTTPLimits) -> None:
        self._kind = kind
        self._route = route = kind.route
        self._limits = limits
        # A ciphertext of the longest plaintext must fit.
        more = CIPHERTEXT_OVERHEAD_BYTES if route.raw_request == "ciphertext" else 0
        self._raw_limit = limits.raw_bytes + more
        self._path = frozenset(route.path_fields)
        self._parsers = {
            name: parser
            for name, parser in _PARSERS[kind].items()
            if name not in self._path
        }

    async def read(self, request: web.Request) -> Operation[Any]:
        """
        Return the operation of a request.

        Raises:
            InvalidInputError: It is malformed, too large or invalid.
            RequestRefusedError: The route does not accept the type of its body.
        """
        path = {name: request.match_info[name] for name in self._path}
        if self._route.events:
            # A page ignores it, but a malformed one is rejected.
            last_event_id(request)
        if not self._route.has_body:
            if request.body_exists:
                raise MalformedError(
                    f"A {self._route.method} request must not have a body."
                )
            return self._convert({**self._query(request, ""), **path})
        kind = self._content_type(request)
        if kind == BYTES:
            field = self._route.raw_request
            tree = self._query(request, field)
            body = await self._body(request, self._raw_limit)
            return self._convert({**tree, **path, field: body})
        self._refuse_query(request)
        body = await self._body(request, self._limits.json_bytes)
        if body and not kind:
            raise RequestRefusedError(
                "unsupported_media_type",
                f"Content-Type is missing. This route accepts {self._accepted()}.",
            )
        return wire.decode_operation(
            body,
            self._kind,
            path=path,
            payload_limit=self._limits.payload_bytes,
        )

    def read_view(self, request: web.Request) -> ListAuditEvents:
        """
        Return the operation of a live view.

        Raises:
            InvalidInputError: The request is malformed or invalid.
        """
        if request.body_exists:
            raise MalformedError(
                f"A {self._route.method} request must not have a body."
            )
        tree = self._query(request, "")
        for name in sorted(_OF_PAGES & tree.keys()):
            raise InvalidInputError(f"A live view does not accept {name}.", field=name)
        last = last_event_id(request)
        if last is not None:
            # A client that resumes sends it with the query of its first request.
            tree = {**tree, "start_seq": None, "cursor": "", **last}
        return wire.convert(
            {**tree, "ascending": True, "follow": True}, ListAuditEvents
        )

    def _convert(self, tree: dict[str, Any]) -> Operation[Any]:
        return wire.convert(tree, self._kind, payload_limit=self._limits.payload_bytes)

    def _content_type(self, request: web.Request) -> str:
        """Return the type of the body, JSON or bytes; empty without Content-Type."""
        coding = request.headers.getall("Content-Encoding", [])
        if any(word.strip().lower() != "identity" for word in coding):
            raise RequestRefusedError(
                "unsupported_media_type",
                "Content-Encoding is not supported. Send the body uncompressed.",
            )
        given = request.headers.getall("Content-Type", [])
        if not given:
            return ""
        kind, _, parameters = given[0].lower().replace(" ", "").partition(";")
        if len(given) == 1 and (
            (kind == JSON and parameters in {"", "charset=utf-8", 'charset="utf-8"'})
            or (kind == BYTES and not parameters and self._route.raw_request)
        ):
            return kind
        raise RequestRefusedError(
            "unsupported_media_type",
            f"Unsupported Content-Type. This route accepts {self._accepted()}.",
        )

    def _accepted(self) -> str:
        return f"{JSON} or {BYTES}" if self._route.raw_request else JSON

    def _refuse_query(self, request: web.Request) -> None:
        if request.query_string:
            raise InvalidInputError(
                "A request with a JSON body accepts no query parameters.", field="query"
            )

    def _query(self, request: web.Request, body_field: str) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, text in query_pairs(request.rel_url.raw_query_string):
            parser = self._parsers.get(name)
            if parser is None or name == body_field:
                raise InvalidInputError(
                    f"Unknown query parameter {name[:64]!r}.",
                    field="query",
                )
            if name in tree:
                raise InvalidInputError(
                    f"The query parameter {name} must be given only once.", field=name
                )
            tree[name] = parser(name, text)
        return tree

    async def _body(self, request: web.Request, limit: int) -> bytes:
        seconds = self._limits.body_timeout_seconds
        return await read_body(request, "body", most_bytes=limit, seconds=seconds)


def header_given_once(request: web.Request, name: str, field: str) -> str | None:
    """
    Return the value of a header, if there is one.

    Raises:
        InvalidInputError: It is repeated; the error names *field*.
    """
    given = request.headers.getall(name, [])
    if len(given) > 1:
        raise InvalidInputError(f"{name} must be given only once.", field=field)
    return given[0] if given else None


def check_claims(request: web.Request) -> None:
    """
    Check what a client says of itself, and has seen of a cluster.

    Raises:
        InvalidInputError: A header is repeated or malformed.
    """
    seen = header_given_once(request, REVISION_HEADER, "revision")
    if seen is not None and parse_revision(seen) is None:
        raise InvalidInputError(
            f"{REVISION_HEADER} must be 1 to 15 digits, copied from a response. Omit "
            "it otherwise.",
            field="revision",
        )
    given = header_given_once(request, INTERFACE_HEADER, "interface")
    if given is not None and not is_interface_claim(given):
        raise InvalidInputError(
            f"{INTERFACE_HEADER} must be 1 to 128 printable ASCII characters, without "
            "spaces around them.",
            field="interface",
        )


def last_event_id(request: web.Request) -> ViewPlace | None:
    """
    Return where a live view resumes, if the request names an event.

    Raises:
        InvalidInputError: The header is repeated, or not the ID of an event.
    """
    given = header_given_once(request, "Last-Event-ID", "start_seq")
    return None if given is None else place_of(given, "Last-Event-ID")


def place_of(event_id: str, name: str) -> ViewPlace:
    """
    Return where a live view goes on behind an event.

    Args:
        event_id: ID of the event.

        name: Where it was given, for the error.

    Raises:
        InvalidInputError: It is not the ID of an event.
    """
    if _CURSOR.match(event_id):
        return {"cursor": event_id}
    if _EVENT_ID.match(event_id):
        return {"start_seq": int(event_id)}
    raise InvalidInputError(f"{name} must be the ID of an event.", field="start_seq")


def _parser(info: msgspec.inspect.Type) -> Callable[[str, str], Any]:
    """Return the parser of a query parameter."""
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _parser(inner)
        case msgspec.inspect.UnionType(types=types):
            (kind,) = (t for t in types if not isinstance(t, msgspec.inspect.NoneType))
            return _parser(kind)
        case msgspec.inspect.IntType():
            return _parse_integer
        case msgspec.inspect.BoolType():
            return _parse_boolean
        case msgspec.inspect.VarTupleType():
            return _parse_list
        case _:
            return _parse_text


def _parse_integer(name: str, text: str) -> int:
    if not _INTEGER.match(text):
        raise InvalidInputError(f"{name} must be an integer.", field=name)
    return int(text)


def _parse_boolean(name: str, text: str) -> bool:
    if text not in _BOOLEANS:
        raise InvalidInputError(f"{name} must be true or false.", field=name)
    return _BOOLEANS[text]


def _parse_list(name: str, text: str) -> list[str]:
    return text.split(",") if text else []


def _parse_text(name: str, text: str) -> str:
    return text


_PARSERS: Final = {
    kind: {
        field.name: _parser(msgspec.inspect.type_info(field.type))
        for field in msgspec.structs.fields(kind)
    }
    for kind in OPERATIONS
}
"""Parsers of all fields, made at import: processes of a server share them."""


def add_route(
    router: web.UrlDispatcher,
    method: str,
    path: str,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    *,
    has_effect: bool = False,
) -> None:
    """
    Add a route; GET also adds HEAD, with the same header fields.

    A GET that *has_effect*, such as the redemption of a code, has no HEAD.

    Standard:
        RFC 9110, section 9.3.2.
    """
    has_head = method == "GET" and not has_effect
    for name in SAFE_METHODS if has_head else (method,):
        router.add_route(name, path, handler, expect_handler=check_expectation)


async def check_expectation(request: web.Request) -> web.StreamResponse | None:
    """
    Reject an expectation other than 100 Continue, which `read_body` answers.

    A route's expect handler; it runs before the middleware (RFC 9110, section 10.1.1).
    """
    if request.headers.get("Expect", "").lower() == "100-continue":
        return None
    return refuse_expectation(request)


def refuse_expectation(request: web.Request) -> web.Response:
    """Return the response to an unsupported expectation."""
    exchange = start_exchange(request, secrets.token_hex(8))
    refusal = RequestRefusedError(
        "expectation_failed", "Unsupported Expect header. Only 100-continue is allowed."
    )
    request.app[METRICS].count_request(exchange.operation, refusal.code, 0.0)
    return problem_response(refusal, exchange.request_id)


_VERSIONS: Final = {HttpVersion10, HttpVersion11}
HOST: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(:\d{0,5})?\Z"
)


def flaw_of(request: web.Request) -> str:
    """
    Return the fault in target, host or connection of a request, or an empty text.

    A connection with a faulty request must be closed.
    """
    target = request.raw_path
    if request.version not in _VERSIONS:
        return "The HTTP version must be HTTP/1.1."
    if request.method == "CONNECT" or "Upgrade" in request.headers:
        return "CONNECT and Upgrade are not supported."
    host = request.headers.get("Host", "")
    if not HOST.match(host):
        return "Host must be a name or an address, optionally with a port."
    if request.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        # The parser accepts other codings before it and does not decode them.
        return "Transfer-Encoding must be chunked."
    if "#" in target:
        return "The request target must not contain a fragment."
    if not target.startswith("/") and target != "*" and not _names(target, host):
        return (
            "An absolute request target must be an https URL whose host equals the "
            "Host header."
        )
    return ""


def _names(target: str, host: str) -> bool:
    """Return whether an absolute target names this server."""
    try:
        found: SplitResult = urlsplit(target)
    except ValueError:
        return False
    return found.scheme == "https" and found.netloc.lower() == host.lower()
