# SPDX-License-Identifier: MIT
"""From a request to the caller that the core knows."""

from __future__ import annotations

import hashlib
import re
import ssl
from typing import Final

from aiohttp import web

from hsm_core.errors import AuthenticationError
from hsm_core.model import Caller
from hsm_server.app_keys import GATEWAY, METRICS, VERIFIER, exchange_of
from hsm_server.tokens import Identity

__all__ = ["authenticate"]

_BEARER: Final = re.compile(r"Bearer ([!-~]+)", re.IGNORECASE)


async def authenticate(request: web.Request) -> Caller:
    """
    Return who asks.

    The address is that of the connection, whatever headers or claims say.

    Raises:
        AuthenticationError: No token, or no good one; this is counted and recorded.
    """
    exchange = exchange_of(request)
    request_id = exchange.request_id if exchange is not None else ""
    address, fingerprint = _address(request), _certificate_sha256(request)
    try:
        identity = _identity(request, fingerprint)
    except AuthenticationError as error:
        request.app[METRICS].count_jwt_failure()
        unknown = Caller(
            principal="",
            roles=frozenset(),
            certificate_sha256=fingerprint,
            source_address=address,
            request_id=request_id,
        )
        await request.app[GATEWAY].record_refusal(unknown, error.code)
        raise
    if exchange is not None:
        exchange.principal = identity.principal
    return Caller(
        principal=identity.principal,
        roles=identity.roles,
        credential_id=identity.credential_id,
        certificate_sha256=fingerprint,
        source_address=address,
        request_id=request_id,
    )


def _identity(request: web.Request, fingerprint: str) -> Identity:
    headers = request.headers.getall("Authorization", [])
    bearer = _BEARER.fullmatch(headers[0]) if len(headers) == 1 else None
    if bearer is None:
        raise AuthenticationError
    verifier = request.app[VERIFIER]
    return verifier.verify(bearer[1], certificate_sha256=fingerprint)


def _address(request: web.Request) -> str:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def _certificate_sha256(request: web.Request) -> str:
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    if not isinstance(tls, ssl.SSLObject | ssl.SSLSocket):
        return ""
    certificate = tls.getpeercert(binary_form=True)
    return hashlib.sha256(certificate).hexdigest() if certificate else ""
