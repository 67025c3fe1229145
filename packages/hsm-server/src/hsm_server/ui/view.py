# SPDX-License-Identifier: MIT
"""Pages: requests of browsers, responses, menu and error pages."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeVar

from aiohttp import web

from hsm_core.error_records import asked_approval
from hsm_core.errors import HSMError, InvalidInputError
from hsm_core.operations import Operation
from hsm_server.http.problems import (
    RequestRefusedError,
    headers_of,
    problem_of,
    status_of,
)
from hsm_server.http.requests import query_pairs
from hsm_server.http.state import VAULT, Exchange
from hsm_server.ui.forms import Form, error_message, has_form_token, read_form
from hsm_server.ui.rendering import PAGE_HEADERS, render
from hsm_server.ui.security import (
    FLASH_COOKIE,
    HOME,
    drop_cookie,
    form_token,
    is_same_origin,
    pack_flash,
    safe_path,
    set_cookie,
    unpack_flash,
)
from hsm_server.vault.access import Visitor, Who

_EVERYBODY: Final = frozenset({"Administrator", "Operator", "Auditor", "Service"})
_ENTRIES: Final = (
    ("Overview", HOME, _EVERYBODY),
    ("Keys", f"{HOME}/keys", _EVERYBODY),
    ("Approvals", f"{HOME}/approvals", _EVERYBODY),
    ("Audit", f"{HOME}/audit", frozenset({"Administrator", "Auditor"})),
    ("Retention", f"{HOME}/retention", frozenset({"Administrator", "Auditor"})),
)


def _navigation(who: Who | None, path: str) -> Sequence[tuple[str, str, bool]]:
    """Return the menu of a user: label, path, and whether the page is there."""
    roles = set(who.roles) if who else set()
    return [
        (label, target, _is_here(target, path))
        for label, target, allowed in _ENTRIES
        if allowed & roles
    ]


def _is_here(target: str, path: str) -> bool:
    return path == target or (target != HOME and path.startswith(target + "/"))


_TITLES = {
    401: "Not signed in",
    403: "Access denied",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Request too large",
    429: "Too many requests",
    500: "Internal error",
    503: "HSM unavailable",
}

R = TypeVar("R")

_OPERATION_ID_BYTES: Final = 18


@dataclass(frozen=True, slots=True, repr=False)
class Visit:
    """
    A browser request, possibly without sign-in.

    Attributes:
        request: The HTTP request.
        visitor: Credentials and address of the sender.
        exchange: Log and metrics data of the request.
        secret: Secret of the cookie that forms are bound to; empty if the request has
            a credential of its own, which other sites can't add.
    """

    request: web.Request
    visitor: Visitor
    exchange: Exchange
    secret: str

    @property
    def query(self) -> Mapping[str, str]:
        """
        The query's parameters.

        Raises:
            MalformedError: It is malformed.
            InvalidInputError: A parameter is repeated.
        """
        pairs = query_pairs(self.request.rel_url.raw_query_string)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise InvalidInputError(
                "Each query parameter must be given once.", field="query"
            )
        return found

    async def form(self) -> Form:
        """
        Return the submitted form.

        Raises:
            InvalidInputError: It is malformed.
            RequestRefusedError: It belongs to another session or comes from another
                site.
        """
        if not is_same_origin(self.request):
            raise RequestRefusedError(
                "cross_site", "Another site sent this form. No change was made."
            )
        form = await read_form(self.request)
        if self.secret and not has_form_token(form, form_token(self.secret)):
            raise RequestRefusedError(
                "stale_form",
                "This form belongs to another session. No change was made. "
                "Reload the page.",
            )
        return form

    @property
    def is_part(self) -> bool:
        """Whether a console script requests a fragment."""
        return self.request.headers.get("HX-Request") == "true"

    def render(
        self, template: str, /, *, status: int = 200, **values: Any
    ) -> web.Response:
        """Return a page, or a fragment of one."""
        response = web.Response(
            text=self.markup(template, **values),
            status=status,
            content_type="text/html",
            headers=PAGE_HEADERS,
        )
        if FLASH_COOKIE in self.request.cookies:
            drop_cookie(response, FLASH_COOKIE)
        return response

    def render_form(
        self, template: str, error: HSMError | None, /, **values: Any
    ) -> web.Response:
        """
        Return a page with forms.

        Args:
            template: Template that shows *alert*, the error message.

            error: Error of a rejected form, or None.

            values: Other values of the template.
        """
        if error is None:
            return self.render(template, alert="", **values)
        self.exchange.code = error.code
        return self.render(
            template,
            status=status_of(type(error)),
            alert=error_message(error),
            **values,
        )

    def markup(self, template: str, /, **values: Any) -> str:
        """Return a page or a fragment of one as text."""
        return render(template, {**self._common(), **values})

    def see_other(self, path: str, flash: str = "") -> web.Response:
        """
        Redirect to another console page.

        Args:
            path: Path.

            flash: Message to show there once; not secret.
        """
        response = web.Response(
            status=HTTPStatus.SEE_OTHER,
            headers={**PAGE_HEADERS, "Location": safe_path(path)},
        )
        if flash:
            set_cookie(response, FLASH_COOKIE, pack_flash(self.secret, flash))
        return response

    def problem(self, error: HSMError | RequestRefusedError) -> web.Response:
        """
        Return an error page, or a fragment.

        It reveals no more than a problem document.
        """
        self.exchange.code = error.code
        problem = problem_of(error, "")
        response = self.render(
            "_fault.html" if self.is_part else "fault.html",
            status=problem.status,
            title=_TITLES.get(problem.status, "Invalid request"),
            problem=problem,
        )
        response.headers.update(headers_of(error, problem))
        return response

    def _common(self) -> dict[str, Any]:
        cookie = self.request.cookies.get(FLASH_COOKIE, "")
        who: Who | None = getattr(self, "who", None)
        return {
            "who": who,
            "form_token": form_token(self.secret),
            "new_operation_id": _new_operation_id,
            "nav": _navigation(who, self.request.path),
            "now": time.time_ns() // 1000,
            "flash": unpack_flash(self.secret, cookie) if cookie else "",
            "request_id": self.exchange.request_id,
            "home": HOME,
        }


@dataclass(frozen=True, slots=True, repr=False)
class View(Visit):
    """
    A browser request of a signed-in user.

    Attributes:
        who: The authenticated user.
    """

    who: Who

    async def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """
        Execute an operation as the signed-in user.

        Args:
            operation: The operation.

            idempotency_key: Key of the form; a repetition is not executed again.

            approval_id: Approval to execute it under, or empty.

            expected_generation: Required generation of the key; 0 for any.

        Raises:
            HSMError: See `hsm_core.protocols.HSM.execute`.
        """
        return await self.request.app[VAULT].execute(
            self.visitor,
            operation,
            idempotency_key=idempotency_key,
            known=self.exchange.know,
            approval_id=approval_id,
            expected_generation=expected_generation,
        )

    def problem(self, error: HSMError | RequestRefusedError) -> web.Response:
        """
        Return an error page, or a fragment.

        An operation that needs approval redirects to its approval request.
        """
        asked = asked_approval(error) if isinstance(error, HSMError) else None
        if asked is None:
            return Visit.problem(self, error)
        self.exchange.code = error.code
        path = f"{HOME}/approvals/{asked.approval_id}"
        flash = "Approval required. Nothing was executed yet."
        response = self.see_other(path, flash)
        if self.is_part:
            response.set_status(HTTPStatus.ACCEPTED)
            response.headers["HX-Redirect"] = path
        return response


def _new_operation_id() -> str:
    return secrets.token_urlsafe(_OPERATION_ID_BYTES)


Handler: TypeAlias = Callable[[View], Awaitable[web.StreamResponse]]
"""Handler of a signed-in user's request."""


@dataclass(frozen=True, slots=True)
class Page:
    """
    A page that requires sign-in.

    Attributes:
        method: ``GET``, or ``POST`` for forms.
        path: Below ``/ui``, in aiohttp's syntax; empty for the first page.
        handler: Returns the response.
        name: Name in log and metrics, such as ``keys.list``.
        is_background: Whether scripts request it; it does not keep a session alive.
    """

    method: str
    path: str
    handler: Handler
    name: str
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class OpenPage:
    """
    A page without sign-in; otherwise as `Page`.

    Attributes:
        has_effect: Whether GET has an effect, so that HEAD is not answered.
    """

    method: str
    path: str
    handler: Callable[[Visit], Awaitable[web.StreamResponse]]
    name: str
    has_effect: bool = False
