# SPDX-License-Identifier: MIT
"""Request handlers of the console: authentication, pages and error pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import msgspec
from aiohttp import web

from hsm_core.errors import AuthenticationError, HSMError
from hsm_server.http.credentials import visitor_of
from hsm_server.http.middleware import FAILURE_PAGES
from hsm_server.http.problems import RequestRefusedError
from hsm_server.http.requests import SAFE_METHODS, add_route
from hsm_server.http.state import METRICS, VAULT, Exchange, begin_operation
from hsm_server.ui import approvals, audit, keys, nodes, overview, retention, sign_in
from hsm_server.ui.overview import SAMPLER, FigureSampler
from hsm_server.ui.rendering import PAGE_HEADERS, STATIC_PATH, serve_asset
from hsm_server.ui.security import (
    BEFORE_COOKIE,
    HOME,
    SESSION_COOKIE,
    cookie_of,
    drop_cookie,
    is_cross_origin,
    new_secret,
    safe_path,
    set_cookie,
)
from hsm_server.ui.view import OpenPage, Page, View, Visit
from hsm_server.vault.access import Visitor

PAGES: Final[tuple[Page, ...]] = (
    *overview.PAGES,
    *keys.PAGES,
    *approvals.PAGES,
    *audit.PAGES,
    *retention.PAGES,
    *nodes.PAGES,
    *sign_in.PAGES,
)
"""Pages that require sign-in."""


_ENDED: Final = "session_ended"
_INTERFACE: Final = "console"
_SIGN_IN: Final = f"{HOME}/sign-in"
_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_console(app: web.Application) -> None:
    """Add the pages under ``/ui``; ``/`` redirects there."""
    app[FAILURE_PAGES] = _failure_page
    app[SAMPLER] = FigureSampler(app[METRICS].snapshot)
    add_route(app.router, "GET", "/", _go_home)
    add_route(app.router, "GET", f"{HOME}/", _go_home)
    add_route(app.router, "GET", STATIC_PATH, serve_asset)
    for open_page in sign_in.OPEN_PAGES:
        add_route(
            app.router,
            open_page.method,
            HOME + open_page.path,
            _open_handler(open_page),
            has_effect=open_page.has_effect,
        )
    for page in PAGES:
        add_route(app.router, page.method, HOME + page.path, _page_handler(page))


async def _go_home(request: web.Request) -> web.Response:
    begin_operation(request, "ui.home")
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": HOME})


def _failure_page(
    request: web.Request, error: HSMError | RequestRefusedError, exchange: Exchange
) -> web.Response | None:
    """Return an HTML error page for failures under ``/ui``."""
    if request.path != HOME and not request.path.startswith(f"{HOME}/"):
        return None
    return Visit(request, Visitor(), exchange, "").problem(error)


def _open_handler(page: OpenPage) -> _Answer:
    """Return the handler of a page without sign-in, with forms bound to a cookie."""

    async def answer(request: web.Request) -> web.StreamResponse:
        exchange = begin_operation(request, f"ui.{page.name}")
        secret = cookie_of(request, BEFORE_COOKIE)
        given = secret or new_secret()
        visitor = msgspec.structs.replace(
            visitor_of(request, _INTERFACE), credential=""
        )
        visit = Visit(request, visitor, exchange, given)
        try:
            response = await page.handler(visit)
        except (HSMError, RequestRefusedError) as error:
            response = visit.problem(error)
        if not secret:
            set_cookie(response, BEFORE_COOKIE, given)
        return response

    return answer


def _page_handler(page: Page) -> _Answer:
    """Return the handler of a page that requires sign-in."""

    async def answer(request: web.Request) -> web.StreamResponse:
        exchange = begin_operation(request, f"ui.{page.name}")
        visitor, secret = _visitor(request, is_background=page.is_background)
        if not visitor.credential and not visitor.session:
            return _require_sign_in(Visit(request, visitor, exchange, ""))
        try:
            who = await request.app[VAULT].who(visitor, known=exchange.know)
            view = View(request, visitor, exchange, secret, who)
        except AuthenticationError:
            return _require_sign_in(Visit(request, visitor, exchange, ""))
        except HSMError as error:
            return Visit(request, visitor, exchange, secret).problem(error)
        try:
            return await page.handler(view)
        except AuthenticationError:
            return _require_sign_in(Visit(request, visitor, exchange, ""))
        except (HSMError, RequestRefusedError) as error:
            return view.problem(error)

    return answer


def _visitor(request: web.Request, *, is_background: bool) -> tuple[Visitor, str]:
    """
    Return the visitor of a request, and the secret that its forms are bound to.

    A request with a credential needs no cookie, and its cookies are ignored. A
    certificate alone is no credential: browsers send it for any site's request.
    """
    visitor = visitor_of(request, _INTERFACE)
    if "Authorization" in request.headers:
        return visitor, ""
    secret = cookie_of(request, SESSION_COOKIE)
    session = msgspec.structs.replace(
        visitor, session=secret, is_background=is_background
    )
    return session, secret


def _require_sign_in(visit: Visit) -> web.StreamResponse:
    """Redirect an unauthenticated visitor to sign-in."""
    request = visit.request
    has_cookie = SESSION_COOKIE in request.cookies
    if visit.visitor.credential or "Authorization" in request.headers:
        response: web.StreamResponse = visit.problem(AuthenticationError())
        return response
    if not has_cookie and request.method in SAFE_METHODS and is_cross_origin(request):
        # Browsers omit SameSite=Strict cookies on links from other sites;
        # a reload from our own page gets them.
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
        # An ended session is no failed authentication.
        visit.exchange.code = _ENDED
        drop_cookie(response, SESSION_COOKIE)
    return response


def _here(request: web.Request) -> str:
    """Return the page to open after sign-in."""
    if request.method in SAFE_METHODS and request.headers.get("HX-Request") != "true":
        return safe_path(request.rel_url.raw_path_qs)
    return HOME
