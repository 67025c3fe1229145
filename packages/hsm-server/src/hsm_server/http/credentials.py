# SPDX-License-Identifier: MIT
"""Credentials and source address of a request, as the vault's visitor."""

from __future__ import annotations

import asyncio
import re
from typing import Final

import msgspec
from aiohttp import web

from hsm_core.rest import (
    INTERFACE_HEADER,
    REVISION_HEADER,
    is_interface_claim,
    parse_revision,
)
from hsm_server.http.state import SOURCES, exchange_of
from hsm_server.limits.guard import credential_digest
from hsm_server.limits.proxies import SourceAddresses
from hsm_server.vault.access import Visitor

_UNREADABLE: Final = "?"
"""Replaces malformed credentials; never a valid bearer token."""

_BEARER: Final = re.compile(r"Bearer ([!-~]+)", re.IGNORECASE)


def bearer_of(value: str) -> str:
    """Return the bearer token in a value of ``Authorization``."""
    bearer = _BEARER.fullmatch(value)
    # Malformed credentials are an error, not an anonymous request.
    return bearer[1] if bearer is not None else _UNREADABLE


def visitor_of(request: web.Request, interface: str = "rest") -> Visitor:
    """
    Return the visitor of a request that came through an interface.

    The address is that of the connection, or the one that trusted proxies report; see
    `SourceAddresses`.
    """
    exchange = exchange_of(request)
    return Visitor(
        credential=_credential(request),
        certificate=certificate_of(request.transport),
        address=address_of(request),
        interface=interface,
        interface_claimed=_claim(request.headers.getall(INTERFACE_HEADER, [])),
        revision=_revision(request.headers.getall(REVISION_HEADER, [])),
        request_id=exchange.request_id if exchange is not None else "",
    )


def api_visitor_of(request: web.Request) -> Visitor:
    """
    Return the visitor of an API request, protected against cross-site requests.

    Browsers send a client certificate with requests of any site's pages. Such a request
    counts as one with invalid credentials.

    Standard:
        Fetch, section 3.2 (``Origin``); Fetch Metadata (``Sec-Fetch-Site``).
    """
    visitor = visitor_of(request)
    if visitor.credential or not _is_from_page(request):
        return visitor
    return msgspec.structs.replace(visitor, credential=_UNREADABLE)


def _is_from_page(request: web.Request) -> bool:
    site = request.headers.get("Sec-Fetch-Site", "none")
    return "Origin" in request.headers or site not in {"same-origin", "none"}


def _credential(request: web.Request) -> str:
    headers = request.headers.getall("Authorization", [])
    if not headers:
        return ""
    return bearer_of(headers[0]) if len(headers) == 1 else _UNREADABLE


def _claim(given: list[str]) -> str:
    """Return what a client says of itself; the API refuses what is no claim."""
    return given[0] if len(given) == 1 and is_interface_claim(given[0]) else ""


def _revision(given: list[str]) -> int:
    """Return what a client has seen; the API refuses what is no revision."""
    return (parse_revision(given[0]) or 0) if len(given) == 1 else 0


def address_of(request: web.Request) -> str:
    """Return the source address of a request, or an empty text."""
    return source_of(request, request.app[SOURCES])


def source_of(request: web.Request, sources: SourceAddresses) -> str:
    """Return the source address of a request before routing, or an empty text."""
    forwarded = request.headers.getall(sources.header, [])
    return sources.source_of(peer_address(request.transport), forwarded)


def peer_address(transport: asyncio.BaseTransport | None) -> str:
    """Return the address at the other end of a connection, or an empty text."""
    peer = transport.get_extra_info("peername") if transport else None
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


_SHOWN: Final = web.RequestKey("_SHOWN", bytes)


def shown_by(request: web.Request) -> bytes:
    """
    Return a digest of the credentials of a request, unverified.

    The certificate counts only if there are no others.
    """
    known = request.get(_SHOWN)
    if known is None:
        known = request[_SHOWN] = credential_digest(
            _field(request, "Authorization"),
            _field(request, "Cookie"),
            certificate_of(request.transport),
        )
    return known


def _field(request: web.Request, name: str) -> bytes:
    values = request.headers.getall(name, [])
    return "\n".join(values).encode("utf-8", "surrogateescape")


def certificate_of(transport: asyncio.BaseTransport | None) -> bytes:
    """Return the client certificate of a connection, DER, or nothing."""
    tls = transport.get_extra_info("ssl_object") if transport else None
    return tls.getpeercert(binary_form=True) or b"" if tls is not None else b""
