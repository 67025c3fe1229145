# SPDX-License-Identifier: MIT
"""
Sign-in with a token, client certificate or OpenID Connect; sign-out.

A cookie holds the state that the provider's callback must match. Browsers must send it
with the provider's redirect, so its ``SameSite`` is ``Lax``. It is valid for one
callback.
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
from hsm_server.config.settings import MAX_TOKEN_BYTES
from hsm_server.http.state import LOGGER, PROVIDER, VAULT
from hsm_server.identity.oidc_client import Provider, ProviderError, SignInState
from hsm_server.identity.oidc_config import RETURN_PATH
from hsm_server.ui.rendering import PAGE_HEADERS
from hsm_server.ui.security import (
    BEFORE_COOKIE,
    HOME,
    SESSION_COOKIE,
    cookie_of,
    drop_cookie,
    is_cross_origin,
    safe_path,
    set_cookie,
)
from hsm_server.ui.view import OpenPage, Page, View, Visit
from hsm_server.vault.access import Visitor

_SIGN_IN: Final = "/sign-in"

STATE_COOKIE: Final = "__Host-ferrohsm-started"
"""Cookie with the state that the callback must match."""

_AWAY_SECONDS: Final = 600
_MOST_COOKIE: Final = 2048
_MOST_CODE: Final = 4096
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43,128}\Z")


async def _show(visit: Visit) -> web.Response:
    """Show the sign-in page."""
    return sign_in_page(visit, safe_path(visit.query.get("next", HOME)))


def sign_in_page(visit: Visit, target: str, *, error: str = "") -> web.Response:
    """
    Return the sign-in page.

    Args:
        visit: The browser's request.

        target: Path to open after sign-in.

        error: Error of the previous attempt, or empty.
    """
    provider = visit.request.app[PROVIDER]
    return visit.render(
        "session/sign_in.html",
        status=401 if error else 200,
        target=target,
        has_certificate=bool(visit.visitor.certificate),
        provider=provider.title if provider else "",
        error=error,
    )


async def _sign_in(visit: Visit) -> web.Response:
    """Start a session under a fresh secret."""
    form = await visit.form()
    target = safe_path(form.get("next", HOME))
    credential = "".join(form.get("token").split())
    if form.get("how") == "certificate":
        credential = ""
    elif not credential:
        return sign_in_page(visit, target, error="Enter an access token.")
    visitor = msgspec.structs.replace(
        visit.visitor, credential=credential[: MAX_TOKEN_BYTES + 1]
    )
    error = "Sign-in failed. Check the token or certificate."
    return await _begin_session(visit, visitor, target, error)


async def _end_former(visit: Visit) -> None:
    former = cookie_of(visit.request, SESSION_COOKIE)
    if not former:
        return
    visitor = msgspec.structs.replace(visit.visitor, session=former)
    try:
        await visit.request.app[VAULT].sign_out(visitor, known=visit.exchange.know)
    except AuthenticationError:
        return


async def _begin_session(
    visit: Visit, visitor: Visitor, target: str, error: str
) -> web.Response:
    """
    Sign in, set the session cookie and redirect, or show the error.

    Any previous session ends, which prevents session fixation.
    """
    vault = visit.request.app[VAULT]
    try:
        signed_in = await vault.sign_in(visitor, known=visit.exchange.know)
    except AuthenticationError as failure:
        visit.exchange.code = failure.code
        return sign_in_page(visit, target, error=error)
    await _end_former(visit)
    response = visit.see_other(target)
    set_cookie(response, SESSION_COOKIE, signed_in.session)
    drop_cookie(response, BEFORE_COOKIE)
    return response


async def _sign_out(view: View) -> web.Response:
    """End the session in the browser and in the vault process."""
    await view.form()
    if view.visitor.session:
        vault = view.request.app[VAULT]
        await vault.sign_out(view.visitor, known=view.exchange.know)
    response = view.see_other(HOME + _SIGN_IN)
    drop_cookie(response, SESSION_COOKIE)
    return response


async def _redirect_to_provider(visit: Visit) -> web.Response:
    """Redirect to the provider."""
    provider = _provider(visit)
    onward = safe_path(visit.query.get("next", HOME))
    try:
        url, started = await provider.begin(onward)
    except ProviderError as error:
        return _failed(visit, onward, error)
    response = web.Response(
        status=HTTPStatus.SEE_OTHER, headers={**PAGE_HEADERS, "Location": url}
    )
    state = base64.urlsafe_b64encode(msgspec.json.encode(started)).decode()
    set_cookie(response, STATE_COOKIE, state, samesite="Lax", seconds=_AWAY_SECONDS)
    return response


async def _handle_callback(visit: Visit) -> web.Response:
    """Handle the provider's callback and start a session."""
    provider = _provider(visit)
    if _may_omit_session_cookie(visit.request):
        # A reload from our own page sends the session cookie, so that session ends.
        path = f"{RETURN_PATH}?{urlencode(visit.query)}"
        return visit.render("session/again.html", path=path)
    started = _unpack(visit.request.cookies.get(STATE_COOKIE, ""))
    onward = safe_path(started.onward) if started else HOME
    try:
        token = await _exchange_code(visit, provider, started)
    except ProviderError as error:
        response = _failed(visit, onward, error)
    else:
        response = await _begin(visit, onward, token, started)
    drop_cookie(response, STATE_COOKIE)
    return response


def _may_omit_session_cookie(request: web.Request) -> bool:
    """Return whether the browser may have omitted SameSite=Strict cookies."""
    return SESSION_COOKIE not in request.cookies and is_cross_origin(request)


async def _exchange_code(
    visit: Visit, provider: Provider, started: SignInState | None
) -> str:
    """
    Return the ID token of a callback.

    Raises:
        ProviderError: The state does not match, or the callback has no code.
    """
    query = visit.query
    state, code = query.get("state", ""), query.get("code", "")
    if started is None or not hmac.compare_digest(
        state.encode(), started.state.encode()
    ):
        raise ProviderError(
            "This sign-in was not started in this browser. Start again."
        )
    await provider.check_sender(query.get("iss"))
    if not 1 <= len(code) <= _MOST_CODE or "error" in query:
        raise ProviderError("The provider did not authenticate you.")
    return await provider.exchange(code, started)


async def _begin(
    visit: Visit, onward: str, token: str, started: SignInState | None
) -> web.Response:
    nonce = started.nonce if started else ""
    visitor = msgspec.structs.replace(visit.visitor, credential=token, nonce=nonce)
    error = "This server does not accept the identity from the provider."
    return await _begin_session(visit, visitor, onward, error)


def _provider(visit: Visit) -> Provider:
    provider = visit.request.app[PROVIDER]
    if provider is None:
        raise web.HTTPNotFound
    return provider


def _failed(visit: Visit, onward: str, error: ProviderError) -> web.Response:
    visit.request.app[LOGGER].warning("provider failed", reason=str(error))
    visit.exchange.code = AuthenticationError.code
    return sign_in_page(visit, onward, error=str(error))


def _unpack(cookie: str) -> SignInState | None:
    """Return the state in a cookie; None if malformed."""
    if not 1 <= len(cookie) <= _MOST_COOKIE:
        return None
    try:
        data = base64.b64decode(cookie, altchars="-_", validate=True)
        started = msgspec.json.decode(data, type=SignInState)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
    secrets = (started.state, started.nonce, started.verifier)
    return started if all(map(_SECRET.match, secrets)) else None


OPEN_PAGES: Final = (
    OpenPage("GET", _SIGN_IN, _show, "sign_in"),
    OpenPage("POST", _SIGN_IN, _sign_in, "sign_in.begin"),
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

PAGES: Final = (Page("POST", "/sign-out", _sign_out, "sign_out"),)
"""Pages that require sign-in."""
