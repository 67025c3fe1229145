# SPDX-License-Identifier: MIT
"""
Sign-in with an OpenID Connect provider: redirect and callback.

A cookie holds the state that the callback must match. The provider's redirect must
send it, so its ``SameSite`` is ``Lax``. It is valid for one callback.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from hsm_core.errors import AuthenticationError
from hsm_server.http.app_keys import LOGGER, PROVIDER, VAULT
from hsm_server.identity.oidc.config import RETURN_PATH
from hsm_server.identity.oidc.provider import Departure, Provider, ProviderError
from hsm_server.ui.cookies import SESSION_COOKIE, drop_cookie
from hsm_server.ui.origin import HOME, is_cross_origin, safe_path
from hsm_server.ui.page import OpenPage
from hsm_server.ui.rendering import PAGE_HEADERS
from hsm_server.ui.signing_in import begin_session, sign_in_page
from hsm_server.ui.view import Visit

DEPARTURE_COOKIE: Final = "__Host-ferrohsm-departure"
"""Cookie with the state that the callback must match."""

_AWAY_SECONDS: Final = 600
_MOST_CHARACTERS: Final = 2048
_MOST_CODE: Final = 4096
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43,128}\Z")


async def _redirect_to_provider(visit: Visit) -> web.Response:
    """Redirect to the provider."""
    provider = _provider(visit)
    onward = safe_path(visit.query.get("next", HOME))
    try:
        url, departure = await provider.depart(onward)
    except ProviderError as error:
        return _failed(visit, onward, error)
    response = web.Response(
        status=HTTPStatus.SEE_OTHER, headers={**PAGE_HEADERS, "Location": url}
    )
    response.set_cookie(
        DEPARTURE_COOKIE,
        _pack(departure),
        max_age=_AWAY_SECONDS,
        path="/",
        secure=True,
        httponly=True,
        samesite="Lax",
    )
    return response


async def _handle_callback(visit: Visit) -> web.Response:
    """Handle the provider's callback and start a session."""
    provider = _provider(visit)
    if _may_omit_session_cookie(visit.request):
        # A reload from our own page sends the session cookie, so that session ends.
        path = f"{RETURN_PATH}?{urlencode(visit.query)}"
        return visit.render("session/again.html", path=path)
    departure = _unpack(visit.request.cookies.get(DEPARTURE_COOKIE, ""))
    onward = safe_path(departure.onward) if departure else HOME
    try:
        token = await _exchange_code(visit, provider, departure)
    except ProviderError as error:
        response = _failed(visit, onward, error)
    else:
        response = await _begin(visit, onward, token, departure)
    drop_cookie(response, DEPARTURE_COOKIE)
    return response


def _may_omit_session_cookie(request: web.Request) -> bool:
    """Return whether the browser may have omitted SameSite=Strict cookies."""
    return SESSION_COOKIE not in request.cookies and is_cross_origin(request)


async def _exchange_code(
    visit: Visit, provider: Provider, departure: Departure | None
) -> str:
    """
    Return the ID token of a callback.

    Raises:
        ProviderError: The state does not match, or the callback has no code.
    """
    query = visit.query
    state, code = query.get("state", ""), query.get("code", "")
    if departure is None or not hmac.compare_digest(
        state.encode(), departure.state.encode()
    ):
        raise ProviderError("This browser did not start the sign-in. Start again.")
    await provider.check_sender(query.get("iss"))
    if not 1 <= len(code) <= _MOST_CODE or "error" in query:
        raise ProviderError("The provider did not authenticate you.")
    return await provider.exchange(code, departure)


async def _begin(
    visit: Visit, onward: str, token: str, departure: Departure | None
) -> web.Response:
    nonce = departure.nonce if departure else ""
    visitor = msgspec.structs.replace(visit.visitor, credential=token, nonce=nonce)
    try:
        signed_in = await visit.request.app[VAULT].sign_in(
            visitor, known=visit.exchange.know
        )
    except AuthenticationError as error:
        visit.exchange.code = error.code
        text = "This server does not accept the identity from the provider."
        return sign_in_page(visit, onward, error=text)
    return await begin_session(visit, signed_in, onward)


def _provider(visit: Visit) -> Provider:
    provider = visit.request.app[PROVIDER]
    if provider is None:
        raise web.HTTPNotFound
    return provider


def _failed(visit: Visit, onward: str, error: ProviderError) -> web.Response:
    visit.request.app[LOGGER].warning("provider failed", reason=str(error))
    visit.exchange.code = AuthenticationError.code
    return sign_in_page(visit, onward, error=str(error))


def _pack(departure: Departure) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(departure)).decode()


def _unpack(cookie: str) -> Departure | None:
    """Return the state in a cookie; None if malformed."""
    if not 1 <= len(cookie) <= _MOST_CHARACTERS:
        return None
    try:
        data = base64.b64decode(cookie, altchars="-_", validate=True)
        departure = msgspec.json.decode(data, type=Departure)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
    secrets = (departure.state, departure.nonce, departure.verifier)
    return departure if all(map(_SECRET.match, secrets)) else None


OPEN_PAGES: Final = (
    OpenPage("GET", "/sign-in/oidc", _redirect_to_provider, "sign_in.depart"),
    OpenPage(
        "GET",
        "/sign-in/oidc/answer",
        _handle_callback,
        "sign_in.return",
        has_effect=True,
    ),
)
"""Pages without sign-in."""
