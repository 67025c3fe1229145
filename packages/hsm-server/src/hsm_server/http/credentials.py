# SPDX-License-Identifier: MIT
"""Credentials and source address of a request, as the vault's visitor."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from aiohttp import web

from hsm_server.http.state import SOURCES, exchange_of
from hsm_server.limits.proxies import SourceAddresses
from hsm_server.vault.access import Visitor

_UNREADABLE: Final = "?"
"""Replaces malformed credentials; never a valid bearer token."""

_BEARER: Final = re.compile(r"Bearer ([!-~]+)", re.IGNORECASE)


def visitor_of(request: web.Request) -> Visitor:
    """
    Return the visitor of a request.

    The address is that of the connection, or the one that trusted proxies report; see
    `SourceAddresses`.
    """
    exchange = exchange_of(request)
    return Visitor(
        credential=_credential(request),
        certificate=_certificate(request),
        address=address_of(request),
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
    bearer = _BEARER.fullmatch(headers[0]) if len(headers) == 1 else None
    # Malformed credentials are an error, not an anonymous request.
    return bearer[1] if bearer is not None else _UNREADABLE


def address_of(request: web.Request) -> str:
    """Return the source address of a request, or an empty text."""
    return source_of(request, request.app[SOURCES])


def source_of(request: web.Request, sources: SourceAddresses) -> str:
    """Return the source address of a request before routing, or an empty text."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    return sources.source_of(address, request.headers.getall(sources.header, []))


def shown_by(request: web.Request) -> tuple[bytes, ...]:
    """
    Return the credentials of a request, unverified.

    The certificate counts only if there are no others.
    """
    fields = tuple(
        "\n".join(request.headers.getall(name, [])).encode("utf-8", "surrogateescape")
        for name in ("Authorization", "Cookie")
    )
    return fields if any(fields) else (*fields, _certificate(request))


def _certificate(request: web.Request) -> bytes:
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    return tls.getpeercert(binary_form=True) or b"" if tls is not None else b""
