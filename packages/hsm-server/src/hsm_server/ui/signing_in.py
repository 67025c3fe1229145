# SPDX-License-Identifier: MIT
"""Sign-in with a token or client certificate, and sign-out."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from hsm_core.errors import AuthenticationError
from hsm_server.config.settings import MAX_TOKEN_BYTES
from hsm_server.http.app_keys import PROVIDER, VAULT
from hsm_server.ui.cookies import (
    BEFORE_COOKIE,
    SESSION_COOKIE,
    cookie_of,
    drop_cookie,
    set_cookie,
)
from hsm_server.ui.origin import HOME, safe_path
from hsm_server.ui.page import OpenPage, Page
from hsm_server.ui.view import View, Visit
from hsm_server.vault.access import SignedIn

_SIGN_IN: Final = "/sign-in"


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
    vault = visit.request.app[VAULT]
    try:
        signed_in = await vault.sign_in(visitor, known=visit.exchange.know)
    except AuthenticationError as error:
        visit.exchange.code = error.code
        return sign_in_page(
            visit,
            target,
            error="Sign-in failed. Check the token or certificate.",
        )
    return await begin_session(visit, signed_in, target)


async def _end_former(visit: Visit) -> None:
    former = cookie_of(visit.request, SESSION_COOKIE)
    if not former:
        return
    visitor = msgspec.structs.replace(visit.visitor, session=former)
    try:
        await visit.request.app[VAULT].sign_out(visitor, known=visit.exchange.know)
    except AuthenticationError:
        return


async def begin_session(visit: Visit, signed_in: SignedIn, target: str) -> web.Response:
    """
    Set the session cookie and redirect.

    Any previous session ends, which prevents session fixation.
    """
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


OPEN_PAGES: Final = (
    OpenPage("GET", _SIGN_IN, _show, "sign_in"),
    OpenPage("POST", _SIGN_IN, _sign_in, "sign_in.begin"),
)
"""Pages without sign-in."""

PAGES: Final = (Page("POST", "/sign-out", _sign_out, "sign_out"),)
"""Pages that require sign-in."""
