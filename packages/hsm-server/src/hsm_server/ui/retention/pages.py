# SPDX-License-Identifier: MIT
"""The pages of retention: the queue, holds, one key, and a ledger that is lost."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any, Final, TypeVar
from urllib.parse import quote

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import ConflictError, InvalidInputError
from hsm_core.model import KeyInfo
from hsm_core.operations import (
    BeginLedger,
    DescribeKey,
    ExtendRetention,
    HoldKey,
    ListKeys,
    ListVersions,
    Operation,
    ReleaseKey,
    RetentionStatus,
)
from hsm_server.problems import status_of
from hsm_server.ui.forms import Form
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.retention.presenting import held_row, present, present_key
from hsm_server.ui.view import View

__all__ = ["PAGES"]

R = TypeVar("R")

_LIST: Final = f"{HOME}/retention"
_MOST_DIGITS: Final = 15
_LOOKED_AT: Final = 500
"""Keys that one page of holds looks at: no index knows which are held."""


async def _overview(view: View) -> web.Response:
    report = await view.execute(RetentionStatus())
    return view.render("retention/overview.html", report=present(report))


async def _find(view: View) -> web.Response:
    """Lead to the page of a key, by whatever it is called."""
    wanted = view.query.get("key", "").strip().lower()
    key = await view.execute(_read(DescribeKey, key_id=wanted))
    return view.see_other(f"{_LIST}/keys/{key.key_id}")


async def _holds(view: View) -> web.Response:
    cursor = view.query.get("cursor", "")
    page = await view.execute(_read(ListKeys, per_page=_LOOKED_AT, cursor=cursor))
    following = page.next_cursor
    return view.render(
        "retention/holds.html",
        held=[held_row(key) for key in page.items if key.hold],
        looked_at=len(page.items),
        is_first=not cursor,
        next=f"{_LIST}/holds?cursor={quote(following)}" if following else "",
    )


async def _key(view: View) -> web.Response:
    return await _shown(view, await _described(view))


async def _described(view: View) -> KeyInfo:
    key_id = view.request.match_info["key_id"]
    return await view.execute(_read(DescribeKey, key_id=key_id))


async def _shown(
    view: View, key: KeyInfo, *, alert: str = "", status: int = 200
) -> web.Response:
    versions = await view.execute(ListVersions(key_id=key.key_id))
    return view.render(
        "retention/key.html",
        status=status,
        key=present_key(key, versions.items),
        alert=alert,
    )


async def _hold(view: View) -> web.Response:
    form = await view.form()
    operation = _about_key(view, HoldKey, reason=_reason(form))
    return await _change(view, form, operation, "The key is on hold.")


async def _release(view: View) -> web.Response:
    form = await view.form()
    operation = _about_key(view, ReleaseKey, reason=_reason(form))
    return await _change(view, form, operation, "The key is held no more.")


async def _extend(view: View) -> web.Response:
    form = await view.form()
    version = _number(form, "version")
    until = _end_of_day(form["until"])
    operation = _about_key(view, ExtendRetention, version=version, until=until)
    return await _change(
        view, form, operation, f"Version {version} is kept until {until} at least."
    )


async def _change(
    view: View, form: Form, operation: Operation[KeyInfo], flash: str
) -> web.Response:
    """Change a key, unless another change came after the page was made."""
    try:
        key = await view.execute(
            operation,
            idempotency_key=form.operation_id,
            expected_generation=_number(form, "generation"),
        )
    except ConflictError as error:
        view.exchange.code = error.code
        return await _shown(
            view,
            await _described(view),
            alert=str(error),
            status=status_of(type(error)),
        )
    return view.see_other(f"{_LIST}/keys/{key.key_id}", flash)


async def _begin_ledger(view: View) -> web.Response:
    form = await view.form()
    begun = await view.execute(
        _read(BeginLedger, reason=_reason(form)), idempotency_key=form.operation_id
    )
    return view.see_other(_LIST, f"The ledger {begun.log_id} has begun.")


def _about_key(view: View, kind: type[Operation[R]], **fields: Any) -> Operation[R]:
    return _read(kind, key_id=view.request.match_info["key_id"], **fields)


def _read(kind: type[Operation[R]], **fields: Any) -> Operation[R]:
    """
    Return an operation of what was typed.

    Raises:
        InvalidInputError: A field breaks a rule; the message names it.
    """
    return wire.convert(fields, kind)


def _number(form: Form, name: str) -> int:
    text = form[name]
    if not (text.isascii() and text.isdecimal()) or len(text) > _MOST_DIGITS:
        raise InvalidInputError(f"{name} must be a number.", field=name)
    return int(text)


def _reason(form: Form) -> str:
    reason = form["reason"].strip()
    if not reason:
        raise InvalidInputError("Say why; it stands in the trail.", field="reason")
    return reason


def _end_of_day(text: str) -> str:
    """Return the end of a day in UTC, as an instant (RFC 3339)."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise InvalidInputError(
            "until must be a date, such as 2031-12-31.", field="until"
        ) from None
    return datetime.combine(day, time(23, 59, 59), UTC).isoformat()


_ONE: Final = "/retention/keys/{key_id}"

PAGES: Final = (
    Page("GET", "/retention", _overview, "retention.overview"),
    Page("GET", "/retention/find", _find, "retention.find"),
    Page("GET", "/retention/holds", _holds, "retention.holds"),
    Page("POST", "/retention/ledger", _begin_ledger, "retention.begin_ledger"),
    Page("GET", _ONE, _key, "retention.key"),
    Page("POST", f"{_ONE}/hold", _hold, "retention.hold"),
    Page("POST", f"{_ONE}/release", _release, "retention.release"),
    Page("POST", f"{_ONE}/extend", _extend, "retention.extend"),
)
"""The pages of this package."""
