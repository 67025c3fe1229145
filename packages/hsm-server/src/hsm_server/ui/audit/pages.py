# SPDX-License-Identifier: MIT
"""Audit pages: list, one record, live view and verification."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    HSMError,
)
from hsm_core.model import AuditEntry
from hsm_core.operations import AuditStatus, ListAuditEvents, Status, VerifyAudit
from hsm_server.api.live_view import LIVE_VIEW, answer_live_view
from hsm_server.http.problems import status_of
from hsm_server.http.requests import last_event_id
from hsm_server.ui.audit.filters import FAILED, PER_PAGE, read_filters
from hsm_server.ui.audit.presenting import present, progress, record_text
from hsm_server.ui.numbers import whole_number
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_LIST: Final = f"{HOME}/audit"
_OUTCOMES: Final = (("", "any"), ("ok", "ok"), (FAILED, "any error"))
_VERIFIED_AT_ONCE: Final = 5000


async def _list(view: View) -> web.Response:
    query = view.query
    filters = read_filters(query)
    start = query.get("start", "")
    more = {"start_seq": _number("start", start)} if start else {}
    operation = filters.operation(limit=PER_PAGE, **more)
    try:
        page = await view.execute(operation)
    except (AuditUnavailableError, AuditTamperedError) as error:
        return await _unavailable(view, error)
    state = await _state(view)
    outcomes = dict(_OUTCOMES)
    older = page.next_seq
    return view.render(
        "audit/list.html",
        filters=filters,
        outcomes=(
            _OUTCOMES
            if filters.outcome in outcomes
            else (*_OUTCOMES, (filters.outcome, filters.outcome))
        ),
        events=[present(entry) for entry in page.items],
        state=state,
        head_seq=page.head_seq,
        head_hash=page.head_hash,
        is_newest=not start,
        reached=older,
        newest=f"{_LIST}?{filters.query()}",
        older="" if older is None else f"{_LIST}?{filters.query(start=str(older))}",
        live=f"{_LIST}/live?{filters.query()}",
    )


async def _state(view: View) -> AuditStatus:
    return (await view.execute(Status())).audit


async def _unavailable(view: View, error: HSMError) -> web.Response:
    """Return the page for an unreadable audit log, distinct from an empty one."""
    view.exchange.code = error.code
    try:
        state = await _state(view)
    except HSMError:
        state = None
    return view.render(
        "audit/unavailable.html",
        status=status_of(type(error)),
        detail=str(error),
        code=error.code,
        facts=error.facts,
        is_damaged=isinstance(error, AuditTamperedError),
        state=state,
    )


async def _show(view: View) -> web.Response:
    seq = _number("seq", view.request.match_info["seq"])
    try:
        page = await view.execute(ListAuditEvents(start_seq=seq, limit=1))
    except (AuditUnavailableError, AuditTamperedError) as error:
        return await _unavailable(view, error)
    entry = next((item for item in page.items if item.event.seq == seq), None)
    if entry is None:
        return view.render(
            "audit/missing.html", status=404, seq=seq, head_seq=page.head_seq
        )
    return view.render(
        "audit/show.html",
        event=present(entry),
        record=record_text(entry),
        head_seq=page.head_seq,
    )


async def _live(view: View) -> web.StreamResponse:
    """Stream rows of new records as server-sent events."""
    query = view.query
    start = last_event_id(view.request)
    if start is None and query.get("start"):
        start = _number("start", query["start"])
    operation = read_filters(query).operation(
        start_seq=start, ascending=True, follow=True
    )
    view.exchange.operation = LIVE_VIEW

    def row(entry: AuditEntry) -> bytes:
        return view.markup("audit/_row.html", event=present(entry)).encode()

    return await answer_live_view(
        view.request, view.visitor, operation, view.exchange, encode=row
    )


async def _offer_verification(view: View) -> web.Response:
    return view.render("audit/verify.html", found=None)


async def _verify(view: View) -> web.Response:
    """Verify the next batch of records; the page requests the one after it."""
    form = await view.form()
    start = _number("start", form.get("start", "0"))
    operation = VerifyAudit(start_seq=start, limit=_VERIFIED_AT_ONCE)
    template = "audit/_verification.html" if view.is_part else "audit/verify.html"
    try:
        found = await view.execute(operation)
    except (AuditUnavailableError, AuditTamperedError) as error:
        view.exchange.code = error.code
        return view.render(
            "audit/_broken.html" if view.is_part else "audit/broken.html",
            status=status_of(type(error)),
            detail=str(error),
            facts=error.facts,
            is_damaged=isinstance(error, AuditTamperedError),
        )
    begun = form.get("begun")
    return view.render(
        template,
        found=progress(
            _number("begun", begun) if begun else found.start_seq,
            found.next_seq,
            found.head_seq,
            found.head_hash,
        ),
    )


def _number(name: str, text: str) -> int:
    return whole_number(text, name, f"{name} must be the number of an audit record.")


PAGES: Final = (
    Page("GET", "/audit", _list, "audit.list"),
    Page("GET", "/audit/live", _live, "audit.live", is_background=True),
    Page("GET", "/audit/verify", _offer_verification, "audit.verification"),
    Page("POST", "/audit/verify", _verify, "audit.verify"),
    Page("GET", "/audit/{seq:[0-9]+}", _show, "audit.show"),
)
"""Pages of this package."""
