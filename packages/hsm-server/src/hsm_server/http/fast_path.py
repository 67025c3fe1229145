# SPDX-License-Identifier: MIT
"""
Fast path: uses of keys without routing, middleware stack and tasks.

A request takes it if its client authenticated recently, its body is short and arrives
with its head or soon after, and the fast path knows each of its header fields. All
others, and all that prove invalid before the vault gets them, take the normal path,
which defines the responses: those of the fast path have the same bytes, records,
metrics and log lines.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Any, Final, Protocol

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.http_parser import RawRequestMessage

from hsm_core import wire
from hsm_core.operations import OPERATIONS, Effect, Operation
from hsm_core.rest import (
    API_PREFIX,
    INTERFACE_HEADER,
    REVISION_HEADER,
    is_interface_claim,
    parse_revision,
)
from hsm_server.http.credentials import bearer_of, certificate_of, peer_address
from hsm_server.http.middleware import (
    REQUEST_ID,
    failure_parts,
    note_caller,
    note_end,
    note_failure,
)
from hsm_server.http.requests import HOST, JSON
from hsm_server.http.responses import Parts
from hsm_server.http.state import GUARD, IN_FLIGHT, SETTINGS, SOURCES, VAULT, Exchange
from hsm_server.limits.guard import credential_digest
from hsm_server.observability.tracing import parent_of
from hsm_server.vault.access import CancelUse, Reply, Visitor

MAX_BODY_BYTES: Final = 64 * 1024
"""Longest body on the fast path."""

FAST_PATH: Final[web.AppKey[FastPath]] = web.AppKey("FAST_PATH")
"""Fast path of an application that serves keys."""

_KEYS: Final = f"{API_PREFIX}/keys/"
_KEY_PATH: Final = "/keys/{key_id}/"
_KEY: Final = re.compile(r"[0-9a-z][0-9a-z._-]{0,63}")
_ROUTES: Final[dict[str, type[Operation[Any]]]] = {
    kind.route.path.removeprefix(_KEY_PATH): kind
    for kind in OPERATIONS
    if kind.effect is Effect.USE
    and kind.route.method == "POST"
    and kind.route.has_body
    and kind.route.path.startswith(_KEY_PATH)
    and not kind.route.location
}
"""Operations by the rest of their path after the key."""

_INTERFACE: Final = INTERFACE_HEADER.lower().encode()
_REVISION: Final = REVISION_HEADER.lower().encode()
_IGNORED: Final = frozenset(
    {b"accept-encoding", b"accept-language", b"content-length", b"user-agent"}
)
_KNOWN: Final = _IGNORED | {
    b"accept",
    b"authorization",
    b"connection",
    b"content-type",
    b"host",
    b"traceparent",
    b"x-request-id",
    _INTERFACE,
    _REVISION,
}
"""Header fields of the fast path; each may be given once."""

_JSON_ACCEPTED: Final = frozenset({b"*/*", JSON.encode()})


class Requester(Protocol):
    """Connection that a request has come by."""

    transport: Any

    def finish(self, response: Parts, exchange: Exchange) -> None:
        """Send the response to the request in progress."""


class Head(msgspec.Struct, frozen=True):
    """
    Head of a request that may take the fast path.

    Attributes:
        kind: The operation.
        key_id: The key in its path.
        fields: Header fields, by name in lower case.
    """

    kind: type[Operation[Any]]
    key_id: str
    fields: dict[bytes, bytes]


def read_head(message: RawRequestMessage) -> Head | None:
    """Return the head of a request; None if it takes the normal path."""
    if message.method != "POST" or not message.path.startswith(_KEYS):
        return None
    key_id, _, rest = message.path[len(_KEYS) :].partition("/")
    kind = _ROUTES.get(rest)
    if kind is None or not _KEY.fullmatch(key_id):
        return None
    fields = {name.lower(): value for name, value in message.raw_headers}
    if len(fields) < len(message.raw_headers) or not fields.keys() <= _KNOWN:
        return None
    if message.version != HttpVersion11 or message.should_close or message.upgrade:
        return None
    if not _is_plain(fields):
        return None
    return Head(kind, key_id, fields)


def _is_plain(fields: dict[bytes, bytes]) -> bool:
    """Return whether the values of header fields are the usual ones."""
    return (
        fields.get(b"content-type") == b"application/json"
        and fields.get(b"accept", b"*/*") in _JSON_ACCEPTED
        and fields.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        and int(fields.get(b"content-length", b"0")) <= MAX_BODY_BYTES
        and HOST.match(fields.get(b"host", b"").decode("latin-1")) is not None
        and (
            _INTERFACE not in fields
            or is_interface_claim(fields[_INTERFACE].decode("latin-1"))
        )
        and parse_revision(fields.get(_REVISION, b"0").decode("latin-1")) is not None
    )


class FastPath:
    """
    Fast path of an application.

    Args:
        app: Application with vault, limits, metrics and log.
    """

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._vault = app[VAULT]
        self._guard = app[GUARD]
        self._sources = app[SOURCES]
        self._in_flight = app[IN_FLIGHT]
        limits = app[SETTINGS].limits
        self._payload_bytes = limits.payload_bytes
        self._most_bytes = min(MAX_BODY_BYTES, limits.json_bytes)

    def is_expected(self, requester: Requester, head: Head) -> bool:
        """Return whether to wait for the body: whether its client was good lately."""
        authorization = head.fields.get(b"authorization", b"")
        certificate = certificate_of(requester.transport)
        return self._guard.is_good(credential_digest(authorization, b"", certificate))

    def begin(self, requester: Requester, head: Head, body: bytes) -> Use | None:
        """
        Begin a request.

        Args:
            requester: Gets the response, after this has returned.

            head: From `read_head`.

            body: The whole body.

        Returns:
            None if the request takes the normal path; nothing was done or counted.
        """
        began = time.perf_counter()
        if len(body) > self._most_bytes or self._in_flight.is_draining:
            return None
        certificate = certificate_of(requester.transport)
        authorization = head.fields.get(b"authorization", b"")
        shown = credential_digest(authorization, b"", certificate)
        if not self._guard.is_good(shown):
            return None
        try:
            operation = wire.decode_operation(
                body,
                head.kind,
                path={"key_id": head.key_id},
                payload_limit=self._payload_bytes,
            )
        except Exception:
            # The normal path finds the same, and says so.
            return None
        visitor = self._visitor(requester, head, certificate)
        use = Use(self._app, requester, head, visitor, shown, began)
        cancel = self._vault.begin(visitor, operation, use.answer)
        if cancel is None:
            return None
        use.cancel_in_vault = cancel
        return use

    def note_lost(self, requester: Requester, head: Head, seconds: float) -> None:
        """
        Count and log a request whose client has gone before its body had arrived.

        Args:
            requester: The connection.

            head: Head of the request.

            seconds: Time since the head had arrived.
        """
        visitor = self._visitor(requester, head, certificate_of(requester.transport))
        use = Use(
            self._app, requester, head, visitor, b"", time.perf_counter() - seconds
        )
        use.cancel()

    def _visitor(self, requester: Requester, head: Head, certificate: bytes) -> Visitor:
        authorization = head.fields.get(b"authorization")
        given = head.fields.get(b"x-request-id", b"").decode("latin-1")
        return Visitor(
            credential=""
            if authorization is None
            else bearer_of(authorization.decode("latin-1")),
            certificate=certificate,
            address=self._sources.source_of(peer_address(requester.transport), ()),
            interface_claimed=head.fields.get(_INTERFACE, b"").decode("latin-1"),
            revision=int(head.fields.get(_REVISION, b"0")),
            request_id=given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8),
        )


class Use:
    """
    Request in progress on the fast path.

    Args:
        app: Application with limits, metrics and log.

        requester: Gets the response.

        head: Head of the request.

        visitor: Who sent it.

        shown: Digest of their credentials.

        began: When it began, on the performance counter.

    Attributes:
        cancel_in_vault: Gives up the reply of the vault.
    """

    __slots__ = (
        "_app",
        "_began",
        "_head",
        "_requester",
        "_shown",
        "_visitor",
        "cancel_in_vault",
    )

    def __init__(
        self,
        app: web.Application,
        requester: Requester,
        head: Head,
        visitor: Visitor,
        shown: bytes,
        began: float,
    ) -> None:
        self._app = app
        self._requester = requester
        self._head = head
        self._visitor = visitor
        self._shown = shown
        self._began = began
        self.cancel_in_vault: CancelUse = lambda: None

    def cancel(self) -> None:
        """Give up the request of a client that has gone."""
        self.cancel_in_vault()
        exchange = self._exchange()
        exchange.code = "cancelled"
        self._note_end(exchange, 0)

    def answer(self, reply: Reply) -> None:
        """Send the response to the client, count and log it."""
        exchange = self._exchange()
        exchange.principal, exchange.quota = reply.principal, reply.quota
        if reply.principal:
            exchange.revision = self._app[VAULT].revision
        response = self._response(reply, exchange)
        note_caller(self._app, self._visitor.address, self._shown, exchange)
        self._note_end(exchange, response.status)
        self._requester.finish(response, exchange)

    def _exchange(self) -> Exchange:
        return Exchange(self._visitor.request_id, self._head.kind.__name__)

    def _note_end(self, exchange: Exchange, status: int) -> None:
        note_end(
            self._app,
            exchange,
            method="POST",
            parent=self._parent(),
            status=status,
            seconds=time.perf_counter() - self._began,
        )

    def _response(self, reply: Reply, exchange: Exchange) -> Parts:
        error = reply.error
        if error is None:
            try:
                body = wire.encode_json(reply.result)
                return Parts(self._head.kind.route.success, JSON, body)
            except MemoryError:
                raise  # A front end without memory is started again.
            except Exception as failure:
                error = failure
        return failure_parts(note_failure(self._app, error, exchange), exchange)

    def _parent(self) -> str:
        given = self._head.fields.get(b"traceparent")
        return "" if given is None else parent_of([given.decode("latin-1")])
