# SPDX-License-Identifier: MIT
"""Audit pages: records, live view and verification."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    HSMError,
    InvalidInputError,
)
from hsm_core.model import AuditEntry
from hsm_core.operations import AuditStatus, ListAuditEvents, Status, VerifyAudit
from hsm_server.api.live_view import LIVE_VIEW, answer_live_view
from hsm_server.http.problems import status_of
from hsm_server.http.requests import last_event_id, place_of
from hsm_server.ui.forms import whole_number
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View

FAILED: Final = "failed"
"""Outcome that matches any error."""

PER_PAGE: Final = 50

_NAMES: Final = ("principal", "key_id", "kind", "outcome", "since", "until")


_Filters: TypeAlias = Mapping[str, str]
"""
Filters of the audit log, as typed.

*kind*: operations, separated by commas or spaces. *outcome*: empty, `FAILED`, ``ok`` or
the code of an error. *since*, *until*: date, or date and time, in UTC.
"""


def _filters(view: View) -> _Filters:
    query = view.query
    return {name: query.get(name, "").strip() for name in _NAMES}


def _query(filters: _Filters, **more: str) -> str:
    fields = {**filters, **more}
    return urlencode({name: value for name, value in fields.items() if value})


def _operation(filters: _Filters, **more: Any) -> ListAuditEvents:
    """
    Return the operation that lists the matching records.

    Raises:
        InvalidInputError: A filter is invalid; the message names it.
    """
    outcome = filters["outcome"]
    tree: dict[str, Any] = {
        "principal": filters["principal"],
        "key_id": filters["key_id"],
        "kind": filters["kind"].replace(",", " ").split(),
        "since": _instant("since", filters["since"]),
        "until": _instant("until", filters["until"]),
        **({"failed": True} if outcome == FAILED else {"code": outcome}),
        **more,
    }
    return wire.convert(tree, ListAuditEvents)


def _instant(name: str, text: str) -> str | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{name} must be a date, or a date and a time.", field=name
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def record_text(entry: AuditEntry) -> str:
    """Return a full record as indented ASCII JSON (RFC 8259)."""
    tree = json.loads(wire.encode_json(entry))
    return json.dumps(tree, indent=2, ensure_ascii=True)


_LIST: Final = f"{HOME}/audit"
_OUTCOMES: Final = (("", "any"), ("ok", "ok"), (FAILED, "any error"))
_VERIFIED_AT_ONCE: Final = 5000
_LOG_ID: Final = re.compile(r"[0-9a-f]{32}")


async def _list(view: View) -> web.Response:
    filters, start = _filters(view), view.query.get("start", "")
    cursor = view.query.get("cursor", "")
    more = {"start_seq": _number("start", start)} if start else {"cursor": cursor}
    operation = _operation(filters, limit=PER_PAGE, **more)
    try:
        page = await view.execute(operation)
    except (AuditUnavailableError, AuditTamperedError) as error:
        return await _unavailable(view, error)
    other = filters["outcome"]
    older = {} if page.next_seq is None else {"start": str(page.next_seq)}
    if page.next_cursor:
        older = {"cursor": page.next_cursor}
    return view.render(
        "audit/list.html",
        filters=filters,
        is_filtered=any(filters.values()),
        outcomes=(
            _OUTCOMES if other in dict(_OUTCOMES) else (*_OUTCOMES, (other, other))
        ),
        entries=page.items,
        state=await _state(view),
        head_seq=page.head_seq,
        head_hash=page.head_hash,
        is_newest=not (start or cursor),
        reached=page.next_seq,
        live_cursor=page.head_cursor,
        newest=f"{_LIST}?{_query(filters)}",
        older=f"{_LIST}?{_query(filters, **older)}" if older else "",
        live=f"{_LIST}/live?{_query(filters)}",
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
        log_id = _log_of(view.query.get("log", ""))
        operation = ListAuditEvents(start_seq=seq, limit=1, log_id=log_id)
        page = await view.execute(operation)
    except (AuditUnavailableError, AuditTamperedError) as error:
        return await _unavailable(view, error)
    entry = next((item for item in page.items if item.event.seq == seq), None)
    if entry is None:
        return view.render(
            "audit/missing.html", status=404, seq=seq, head_seq=page.head_seq
        )
    return view.render(
        "audit/show.html",
        event=entry.event,
        node=entry.node,
        same_log=f"?{urlencode({'log': entry.log_id})}" if entry.log_id else "",
        leaf_hash=entry.leaf_hash,
        record=record_text(entry),
        head_seq=page.head_seq,
    )


async def _live(view: View) -> web.StreamResponse:
    """Stream rows of new records as server-sent events."""
    place, start = last_event_id(view.request), view.query.get("start", "")
    if place is None:
        place = place_of(start, "start") if start else {}
    operation = _operation(_filters(view), **place, ascending=True, follow=True)
    view.exchange.operation = LIVE_VIEW

    def row(entry: AuditEntry) -> bytes:
        return view.markup("audit/_row.html", entry=entry).encode()

    return await answer_live_view(
        view.request, view.visitor, operation, view.exchange, encode=row
    )


async def _offer_verification(view: View) -> web.Response:
    return view.render("audit/verify.html", found=None)


async def _verify(view: View) -> web.Response:
    """Verify the next batch of records; the page requests the one after it."""
    form = await view.form()
    start = _number("start", form.get("start", "0"))
    log_id = _log_of(form.get("log", ""))
    operation = VerifyAudit(start_seq=start, limit=_VERIFIED_AT_ONCE, log_id=log_id)
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
    begun = _number("begun", form.get("begun") or str(found.start_seq))
    total = found.head_seq + 1 - begun
    end = found.head_seq + 1 if found.next_seq is None else found.next_seq
    checked = min(end - begun, total)
    return view.render(
        template,
        found=found,
        begun_seq=begun,
        checked=checked,
        total=total,
        percent=100 * checked // total if total > 0 else 100,
    )


def _log_of(found: str) -> str:
    """
    Return the log that a link or a form names, or nothing.

    Raises:
        InvalidInputError: It has another form.
    """
    if found and _LOG_ID.fullmatch(found) is None:
        raise InvalidInputError("log must be the ID of an audit log.", field="log")
    return found


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
