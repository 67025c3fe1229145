# SPDX-License-Identifier: MIT
"""Audit pages: records, live view and verification."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
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
from hsm_server.http.requests import last_event_id
from hsm_server.ui.forms import whole_number
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View

FAILED: Final = "failed"
"""Outcome that matches any error."""

PER_PAGE: Final = 50

_NAMES: Final = ("principal", "key_id", "kind", "outcome", "since", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilters:
    """
    Filters of the audit log, as typed.

    Attributes:
        kind: Operations, separated by commas or spaces.
        outcome: Empty, `FAILED`, ``ok`` or the code of an error.
        since: Date, or date and time, in UTC, as browsers send them.
        until: As *since*.
    """

    principal: str = ""
    key_id: str = ""
    kind: str = ""
    outcome: str = ""
    since: str = ""
    until: str = ""

    @property
    def is_narrow(self) -> bool:
        """Whether any filter is set."""
        return any(getattr(self, name) for name in _NAMES)

    def query(self, **more: str) -> str:
        """Return a query string of these filters and more parameters."""
        fields = {name: getattr(self, name) for name in _NAMES} | more
        return urlencode({name: value for name, value in fields.items() if value})

    def operation(self, **more: Any) -> ListAuditEvents:
        """
        Return the operation that lists the matching records.

        Raises:
            InvalidInputError: A filter is invalid; the message names it.
        """
        tree: dict[str, Any] = {
            "principal": self.principal,
            "key_id": self.key_id,
            "kind": self.kind.replace(",", " ").split(),
            "since": _instant("since", self.since),
            "until": _instant("until", self.until),
            **more,
        }
        if self.outcome == FAILED:
            tree["failed"] = True
        else:
            tree["code"] = self.outcome
        return wire.convert(tree, ListAuditEvents)


def read_filters(query: Mapping[str, str]) -> AuditFilters:
    """Return the filters of a query; other parameters are ignored."""
    return AuditFilters(**{name: query.get(name, "").strip() for name in _NAMES})


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


@dataclass(frozen=True, slots=True)
class VerificationProgress:
    """
    Progress of a verification.

    Attributes:
        begun_seq: First verified record.
        next_seq: Next record to verify; None at the end.
        checked: Records verified since *begun_seq*.
        total: Records from *begun_seq* to the newest.
        percent: Share of verified records, rounded down.
    """

    begun_seq: int
    next_seq: int | None
    checked: int
    total: int
    percent: int
    head_seq: int
    head_hash: str


def progress(
    begun_seq: int, next_seq: int | None, head_seq: int, head_hash: str
) -> VerificationProgress:
    """Return the progress of a verification that started at *begun_seq*."""
    total = head_seq + 1 - begun_seq
    end = head_seq + 1 if next_seq is None else next_seq
    checked = min(end - begun_seq, total)
    percent = 100 * checked // total if total > 0 else 100
    return VerificationProgress(
        begun_seq, next_seq, checked, total, percent, head_seq, head_hash
    )


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
        events=[entry.event for entry in page.items],
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
        event=entry.event,
        leaf_hash=entry.leaf_hash,
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
        return view.markup("audit/_row.html", event=entry.event).encode()

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
