# SPDX-License-Identifier: MIT
"""
ACME challenges: proofs of control over a name, and their HTTP-01 server.

The library supports HTTP-01 but no longer TLS-ALPN-01, which is added here. The HTTP-01
server has no other page and no redirect: a redirect would encourage clients to send
tokens without TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import acme.challenges
from acme.challenges import (
    HTTP01,
    ChallengeResponse,
    KeyAuthorizationChallenge,
    KeyAuthorizationChallengeResponse,
)
from aiohttp import web
from cryptography import x509
from josepy.jwk import JWK

from hsm_server.tls.acme.cache import self_signed
from hsm_server.tls.state import Challenge

_LIFE: Final = timedelta(days=1)
_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTET_STRING: Final = 0x04


@ChallengeResponse.register
class TLSALPN01Response(KeyAuthorizationChallengeResponse):
    """Response to a TLS-ALPN-01 challenge."""

    typ = "tls-alpn-01"


@acme.challenges.Challenge.register
class TLSALPN01(KeyAuthorizationChallenge):
    """
    TLS-ALPN-01 challenge, answered by a certificate in a dedicated handshake.

    Standard:
        RFC 8737, section 3.
    """

    response_cls = TLSALPN01Response
    typ = response_cls.typ

    def validation(self, account_key: JWK, **_: Any) -> bytes:
        """Return the digest that the certificate must have."""
        return hashlib.sha256(self.key_authorization(account_key).encode()).digest()


class Proof(StrEnum):
    """Challenge types of this server."""

    TLS = TLSALPN01.typ
    HTTP = HTTP01.typ


def tls_challenge(name: str, digest: bytes) -> Challenge:
    """
    Return the certificate of a TLS-ALPN-01 challenge.

    Args:
        name: DNS name or IP address.

        digest: SHA-256 of the key authorization.

    Standard:
        RFC 8737, section 3; for addresses RFC 8738, section 6.
    """
    value = bytes((_OCTET_STRING, len(digest))) + digest
    extension = x509.UnrecognizedExtension(_IDENTIFIER, value)
    pair = self_signed([name], life=_LIFE, extensions=[(extension, True)])
    return Challenge(name=_server_name(name), pair=pair)


def _server_name(name: str) -> str:
    try:
        return ipaddress.ip_address(name).reverse_pointer
    except ValueError:
        return name


_PREFIX: Final = f"/{HTTP01.URI_ROOT_PATH}/"
_MOST_CONNECTIONS: Final = 64
_IDLE_SECONDS: Final = 5.0


class HTTPAnswers:
    """
    HTTP-01 challenge server.

    Args:
        bound: Listening socket; the caller closes it.

    Standard:
        RFC 8555, section 8.3.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self._answers: dict[str, str] = {}

    @contextlib.contextmanager
    def giving(self, answers: Mapping[str, str]) -> Iterator[None]:
        """Answer tokens with key authorizations temporarily."""
        self._answers = dict(answers)
        try:
            yield
        finally:
            self._answers = {}

    async def run(self) -> None:
        """Serve until this is cancelled."""
        loop = asyncio.get_running_loop()
        server = web.Server(
            self._answer,
            request_factory=lambda message, payload, protocol, writer, task: _Request(
                message, payload, protocol, writer, task, loop
            ),
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=0,
            max_line_size=2048,
            max_field_size=4096,
        )

        def accept() -> asyncio.Protocol:
            if len(server.connections) < _MOST_CONNECTIONS:
                return server()
            return _Refusal()

        # The loop closes what it is given.
        own = self._bound.dup()
        own.setblocking(False)
        listening = await loop.create_server(accept, sock=own)
        try:
            # Its own `serve_forever` would wait at the end for who says nothing.
            await asyncio.Event().wait()
        finally:
            listening.close()
            await server.shutdown(0.1)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        token = request.path.removeprefix(_PREFIX)
        found = self._answers.get(token) if request.path.startswith(_PREFIX) else None
        if found is None or request.method not in {"GET", "HEAD"}:
            answer = web.Response(status=404, text="Not found.\n")
        else:
            answer = web.Response(
                body=found.encode(), content_type="application/octet-stream"
            )
        answer.force_close()
        return answer


class _Request(web.BaseRequest):
    """Request whose responses, also to malformed requests, name no software."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.pop("Server", None)


class _Refusal(asyncio.Protocol):
    """Connection above the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()
