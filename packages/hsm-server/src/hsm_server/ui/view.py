# SPDX-License-Identifier: MIT
"""One request of a browser, with all that a page needs to answer it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, TypeVar

from aiohttp import web

from hsm_core.errors import HSMError, InvalidInputError
from hsm_core.operations import Operation
from hsm_core.wire import asked_approval
from hsm_server.http.app_keys import VAULT, Exchange
from hsm_server.http.bodies import query_pairs
from hsm_server.http.problems import RequestRefusedError, status_of
from hsm_server.ui.cookies import (
    FLASH_COOKIE,
    drop_cookie,
    form_token,
    pack_flash,
    set_cookie,
    unpack_flash,
)
from hsm_server.ui.faults import Fault, fault_of
from hsm_server.ui.fields import sentence
from hsm_server.ui.forms import Form, has_form_token, read_form
from hsm_server.ui.navigation import navigation
from hsm_server.ui.origin import HOME, is_from_here, safe_path
from hsm_server.ui.rendering import PAGE_HEADERS, render
from hsm_server.vault.access import Visitor, Who

R = TypeVar("R")

_OPERATION_ID_BYTES: Final = 18


class Visit:
    """
    A request of somebody who may be nobody.

    Args:
        request: What is answered.

        visitor: What it shows of who sent it.

        exchange: The notes of the request.

        secret: Of the cookie that forms are tied to; empty where a credential came
            with the request itself, which no other site can have added.
    """

    who: Who | None = None

    def __init__(
        self,
        request: web.Request,
        visitor: Visitor,
        exchange: Exchange,
        secret: str,
    ) -> None:
        self.request = request
        self.visitor = visitor
        self.exchange = exchange
        self._secret = secret

    @property
    def query(self) -> Mapping[str, str]:
        """
        The query's parameters.

        Raises:
            MalformedError: It can't be read.
            InvalidInputError: A parameter is given twice.
        """
        pairs = query_pairs(self.request.rel_url.raw_query_string)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise InvalidInputError("A parameter is given twice.", field="query")
        return found

    async def form(self) -> Form:
        """
        Return what a form of ours has sent.

        Raises:
            InvalidInputError: It can't be read.
            RequestRefusedError: It was not made for this session, or comes from
                another site.
        """
        if not is_from_here(self.request):
            raise RequestRefusedError(
                "cross_site", "Another site has sent this form; nothing was done."
            )
        form = await read_form(self.request)
        if self._secret and not has_form_token(form, form_token(self._secret)):
            raise RequestRefusedError(
                "stale_form",
                "This form belongs to another session; nothing was done. "
                "Load the page again.",
            )
        return form

    @property
    def is_part(self) -> bool:
        """Whether a script of ours wants a part of a page."""
        return self.request.headers.get("HX-Request") == "true"

    def render(
        self, template: str, /, *, status: int = 200, **values: Any
    ) -> web.Response:
        """Return a page."""
        response = self._answer(template, status, values)
        if FLASH_COOKIE in self.request.cookies:
            drop_cookie(response, FLASH_COOKIE)
        return response

    def render_form(
        self, template: str, error: HSMError | None, /, **values: Any
    ) -> web.Response:
        """
        Return a page with forms.

        Args:
            template: It shows *alert*, which is what was wrong.

            error: Why what was sent with one of them was refused; None where nothing
                was.

            values: What else it shows.
        """
        if error is None:
            return self.render(template, alert="", **values)
        self.exchange.code = error.code
        return self.render(
            template, status=status_of(type(error)), alert=sentence(error), **values
        )

    def fragment(
        self, template: str, /, *, status: int = 200, **values: Any
    ) -> web.Response:
        """Return a part of a page."""
        return self._answer(template, status, values)

    def markup(self, template: str, /, **values: Any) -> str:
        """Return a part of a page as text, for an event of a stream."""
        return render(template, {**self._common(), **values})

    def see_other(self, path: str, flash: str = "") -> web.Response:
        """
        Send the browser to another page of the console.

        Args:
            path: Where.

            flash: A sentence that it is to show there, once; nothing secret.
        """
        response = web.Response(
            status=HTTPStatus.SEE_OTHER,
            headers={**PAGE_HEADERS, "Location": safe_path(path)},
        )
        if flash:
            set_cookie(response, FLASH_COOKIE, pack_flash(self._secret, flash))
        return response

    def problem(self, error: HSMError | RequestRefusedError) -> web.Response:
        """Return an error as a page, or as a part of one."""
        self.exchange.code = error.code
        return self.fault(fault_of(error))

    def fault(self, fault: Fault) -> web.Response:
        """Return what went wrong as a page, or as a part of one."""
        template = "_fault.html" if self.is_part else "fault.html"
        response = self.render(template, status=fault.status, fault=fault)
        response.headers.update(fault.headers)
        return response

    def _answer(
        self, template: str, status: int, values: dict[str, Any]
    ) -> web.Response:
        return web.Response(
            text=render(template, {**self._common(), **values}),
            status=status,
            content_type="text/html",
            headers=PAGE_HEADERS,
        )

    def _common(self) -> dict[str, Any]:
        cookie = self.request.cookies.get(FLASH_COOKIE, "")
        return {
            "who": self.who,
            "form_token": form_token(self._secret),
            "new_operation_id": _new_operation_id,
            "nav": navigation(self.who, self.request.path),
            "now": time.time_ns() // 1000,
            "flash": unpack_flash(self._secret, cookie) if cookie else "",
            "request_id": self.exchange.request_id,
            "home": HOME,
        }


class View(Visit):
    """
    A request of somebody whom the vault knows.

    Args:
        request: What is answered.

        visitor: As the vault is told.

        exchange: The notes of the request.

        secret: See `Visit`.

        who: As the vault says.
    """

    who: Who

    def __init__(
        self,
        request: web.Request,
        visitor: Visitor,
        exchange: Exchange,
        secret: str,
        who: Who,
    ) -> None:
        super().__init__(request, visitor, exchange, secret)
        self.who = who

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
        Execute one operation for whoever looks at the page.

        Args:
            operation: What to do.

            idempotency_key: Of a form; what is repeated with it is not done again.

            approval_id: The approval that it is done under, if one is to be named.

            expected_generation: The generation that the key must be at; 0 is any.

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
        Return an error as a page, or as a part of one.

        What others must agree to first leads to the page where they do.
        """
        asked = asked_approval(error) if isinstance(error, HSMError) else None
        if asked is None:
            return super().problem(error)
        self.exchange.code = error.code
        path = f"{HOME}/approvals/{asked.approval_id}"
        flash = "Nothing was done yet: other people must agree first."
        response = self.see_other(path, flash)
        if self.is_part:
            response.set_status(HTTPStatus.ACCEPTED)
            response.headers["HX-Redirect"] = path
        return response


def _new_operation_id() -> str:
    return secrets.token_urlsafe(_OPERATION_ID_BYTES)
