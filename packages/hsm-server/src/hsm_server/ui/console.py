# SPDX-License-Identifier: MIT
"""Serving the pages: who asks, what they get, and what is said of errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import msgspec
from aiohttp import web

from hsm_core.errors import AuthenticationError, HSMError
from hsm_server.http.app_keys import METRICS, VAULT, Exchange, begin_operation
from hsm_server.http.conditions import SAFE_METHODS
from hsm_server.http.failures import FAILURE_PAGES
from hsm_server.http.problems import RequestRefusedError
from hsm_server.http.requests import add_route
from hsm_server.http.visitors import visitor_of
from hsm_server.ui.assets import STATIC_PATH, serve_asset
from hsm_server.ui.cookies import (
    BEFORE_COOKIE,
    SESSION_COOKIE,
    cookie_of,
    drop_cookie,
    new_secret,
    set_cookie,
)
from hsm_server.ui.origin import HOME, comes_from_elsewhere, safe_path
from hsm_server.ui.overview import PULSE, Pulse
from hsm_server.ui.page import OpenPage, Page
from hsm_server.ui.rendering import PAGE_HEADERS
from hsm_server.ui.table import OPEN_PAGES, PAGES
from hsm_server.ui.view import View, Visit
from hsm_server.vault.access import Visitor

_ENDED: Final = "session_ended"
_SIGN_IN: Final = f"{HOME}/sign-in"
_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_console(app: web.Application) -> None:
    """Add the pages under ``/ui``; ``/`` leads there."""
    app[FAILURE_PAGES] = _failure_page
    app[PULSE] = Pulse(app[METRICS].snapshot)
    _add(app.router, "GET", "/", _go_home)
    _add(app.router, "GET", f"{HOME}/", _go_home)
    _add(app.router, "GET", STATIC_PATH, serve_asset)
    for open_page in OPEN_PAGES:
        path = HOME + open_page.path
        _add(app.router, open_page.method, path, _answering_anybody(open_page))
    for page in PAGES:
        _add(app.router, page.method, HOME + page.path, _answering(page))


def _add(router: web.UrlDispatcher, method: str, path: str, answer: _Answer) -> None:
    add_route(router, method, path, answer)


async def _go_home(request: web.Request) -> web.Response:
    begin_operation(request, "ui.home")
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": HOME})


def _failure_page(
    request: web.Request, error: HSMError | RequestRefusedError, exchange: Exchange
) -> web.Response | None:
    """Return in HTML whatever goes wrong under ``/ui``: people read it."""
    if request.path != HOME and not request.path.startswith(f"{HOME}/"):
        return None
    return Visit(request, Visitor(), exchange, "").problem(error)


def _answering_anybody(page: OpenPage) -> _Answer:
    """Return the handler of a page for anybody, whose forms are tied to a cookie."""

    async def answer(request: web.Request) -> web.StreamResponse:
        exchange = begin_operation(request, f"ui.{page.name}")
        secret = cookie_of(request, BEFORE_COOKIE)
        given = secret or new_secret()
        visitor = msgspec.structs.replace(visitor_of(request), credential="")
        visit = Visit(request, visitor, exchange, given)
        try:
            response = await page.handler(visit)
        except (HSMError, RequestRefusedError) as error:
            response = visit.problem(error)
        if not secret:
            set_cookie(response, BEFORE_COOKIE, given)
        return response

    return answer


def _answering(page: Page) -> _Answer:
    """Return the handler of a page for people who are known."""

    async def answer(request: web.Request) -> web.StreamResponse:
        exchange = begin_operation(request, f"ui.{page.name}")
        visitor, secret = _visitor(request, is_background=page.is_background)
        if not visitor.credential and not visitor.session:
            return _turn_away(Visit(request, visitor, exchange, ""))
        try:
            who = await request.app[VAULT].who(visitor, known=exchange.know)
            view = View(request, visitor, exchange, secret, who)
        except AuthenticationError:
            return _turn_away(Visit(request, visitor, exchange, ""))
        except HSMError as error:
            return Visit(request, visitor, exchange, secret).problem(error)
        try:
            return await page.handler(view)
        except AuthenticationError:
            return _turn_away(Visit(request, visitor, exchange, ""))
        except (HSMError, RequestRefusedError) as error:
            return view.problem(error)

    return answer


def _visitor(request: web.Request, *, is_background: bool) -> tuple[Visitor, str]:
    """
    Return what a request shows, and the secret that its forms must be tied to.

    Who sends a credential along needs no cookie, and none counts then. A certificate
    alone is no credential here: browsers show it for whoever makes them ask.
    """
    visitor = visitor_of(request)
    if "Authorization" in request.headers:
        return visitor, ""
    secret = cookie_of(request, SESSION_COOKIE)
    session = msgspec.structs.replace(
        visitor, session=secret, is_background=is_background
    )
    return session, secret


def _turn_away(visit: Visit) -> web.StreamResponse:
    """Have somebody sign in who is not known, or not any more."""
    request = visit.request
    has_cookie = SESSION_COOKIE in request.cookies
    if visit.visitor.credential or "Authorization" in request.headers:
        response: web.StreamResponse = visit.problem(AuthenticationError())
        return response
    if (
        not has_cookie
        and request.method in SAFE_METHODS
        and comes_from_elsewhere(request)
    ):
        # Browsers keep strict cookies back where a link of another site is followed;
        # a page of ours that asks again gets them.
        return visit.render("session/again.html", path=_here(request))
    target = f"{_SIGN_IN}?next={quote(_here(request), safe='')}"
    if visit.is_part or request.method not in SAFE_METHODS:
        response = visit.render("session/ended.html", status=401, target=target)
        if visit.is_part:
            response.headers["HX-Redirect"] = target
    else:
        response = web.Response(
            status=HTTPStatus.SEE_OTHER, headers={**PAGE_HEADERS, "Location": target}
        )
    if has_cookie:
        # Whoever comes back to a session that has ended has tried nothing.
        visit.exchange.code = _ENDED
        drop_cookie(response, SESSION_COOKIE)
    return response


def _here(request: web.Request) -> str:
    """Return which page somebody wants, who must sign in first."""
    if request.method in SAFE_METHODS and request.headers.get("HX-Request") != "true":
        return safe_path(request.rel_url.raw_path_qs)
    return HOME
