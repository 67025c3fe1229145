# SPDX-License-Identifier: MIT
"""Retention pages: queue, legal holds, one key, new ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final
from urllib.parse import quote

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import (
    ConflictError,
    HSMError,
    InvalidInputError,
    KeyNotFoundError,
)
from hsm_core.model import KeyInfo
from hsm_core.operations import DescribeKey, ListKeys, ListVersions, RetentionStatus
from hsm_server.ui.fields import Field, error_message, fill_fields, mark_error
from hsm_server.ui.forms import Form
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.retention.changes import (
    CHANGES,
    RetentionChange,
    build_ledger_start,
    build_operation,
    offered_changes,
    reason_fields,
)
from hsm_server.ui.retention.presenting import held_row, present, present_key
from hsm_server.ui.view import View

_LIST: Final = f"{HOME}/retention"
_LOOKED_AT: Final = 500
"""Keys searched per page of legal holds, which have no index."""


_KEY: Final = Field(
    name="key",
    label="Key",
    hint="Key name or ID. Place a legal hold or extend its retention.",
    is_required=True,
    longest=64,
)


async def _overview(view: View) -> web.Response:
    return await _report(view)


async def _report(
    view: View,
    *,
    ledger: Sequence[Field] = (),
    key: Field = _KEY,
    error: HSMError | None = None,
) -> web.Response:
    """
    Show the retention report.

    Args:
        view: The browser's request.

        ledger: Fields of a rejected form for a new ledger.

        key: Field of the key search.

        error: Why a form was rejected, if so.
    """
    report = await view.execute(RetentionStatus())
    return view.render_form(
        "retention/overview.html",
        error,
        report=present(report),
        is_refused=bool(ledger),
        ledger_fields=ledger or reason_fields(),
        key=key,
    )


async def _find(view: View) -> web.Response:
    """Redirect to the page of a key, by name or ID."""
    wanted = view.query.get("key", "")
    try:
        key = await _describe(view, wanted.strip().lower())
    except (InvalidInputError, KeyNotFoundError) as error:
        asked = replace(_KEY, value=wanted, error=error_message(error))
        return await _report(view, key=asked, error=error)
    return view.see_other(f"{_LIST}/keys/{key.key_id}")


async def _holds(view: View) -> web.Response:
    cursor = view.query.get("cursor", "")
    page = await view.execute(
        wire.convert({"per_page": _LOOKED_AT, "cursor": cursor}, ListKeys)
    )
    following = page.next_cursor
    return view.render(
        "retention/holds.html",
        held=[held_row(key) for key in page.items if key.hold],
        looked_at=len(page.items),
        is_first=not cursor,
        next=f"{_LIST}/holds?cursor={quote(following)}" if following else "",
    )


async def _key(view: View) -> web.Response:
    return await _render_key(view, await _describe(view, _key_id(view)))


def _key_id(view: View) -> str:
    return view.request.match_info["key_id"]


async def _describe(view: View, key_id: str) -> KeyInfo:
    return await view.execute(wire.convert({"key_id": key_id}, DescribeKey))


async def _render_key(
    view: View,
    key: KeyInfo,
    *,
    refused: RetentionChange | None = None,
    form: Form | None = None,
    error: HSMError | None = None,
) -> web.Response:
    """
    Show a key's retention.

    Args:
        view: The browser's request.

        key: The key.

        refused: The rejected change, if any.

        form: The rejected form, whose values are shown again.

        error: Why it was rejected.
    """
    versions = await view.execute(ListVersions(key_id=key.key_id))
    shown = present_key(key, versions.items)
    changes = [(change, change.fields(shown)) for change in offered_changes(shown)]
    if form is not None and error is not None:
        changes = [
            (change, mark_error(fill_fields(fields, form), error))
            if change is refused
            else (change, fields)
            for change, fields in changes
        ]
    return view.render_form("retention/key.html", error, key=shown, changes=changes)


async def _do(view: View, change: RetentionChange) -> web.Response:
    """Execute a change, unless the key has changed since the page was rendered."""
    form = await view.form()
    try:
        operation = build_operation(change, _key_id(view), form)
        key = await view.execute(
            operation,
            idempotency_key=form.operation_id,
            expected_generation=form.number("generation"),
        )
    except (ConflictError, InvalidInputError) as error:
        return await _render_key(
            view,
            await _describe(view, _key_id(view)),
            refused=change,
            form=form,
            error=error,
        )
    return view.see_other(f"{_LIST}/keys/{key.key_id}", change.done.format(operation))


def _change_page(change: RetentionChange) -> Page:
    return Page(
        "POST",
        f"{_ONE}/{change.name}",
        partial(_do, change=change),
        f"retention.{change.name}",
    )


async def _begin_ledger(view: View) -> web.Response:
    form = await view.form()
    try:
        begun = await view.execute(
            build_ledger_start(form), idempotency_key=form.operation_id
        )
    except InvalidInputError as error:
        fields = mark_error(fill_fields(reason_fields(), form), error)
        return await _report(view, ledger=fields, error=error)
    return view.see_other(_LIST, f"Started ledger {begun.log_id}.")


_ONE: Final = "/retention/keys/{key_id}"

PAGES: Final = (
    Page("GET", "/retention", _overview, "retention.overview"),
    Page("GET", "/retention/find", _find, "retention.find"),
    Page("GET", "/retention/holds", _holds, "retention.holds"),
    Page("POST", "/retention/ledger", _begin_ledger, "retention.begin_ledger"),
    Page("GET", _ONE, _key, "retention.key"),
    *map(_change_page, CHANGES.values()),
)
"""Pages of this package."""
