# SPDX-License-Identifier: MIT
"""Retention pages: queue, legal holds, actions on one key, new ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import HSMError, InvalidInputError, KeyNotFoundError
from hsm_core.model import Integrity, KeyInfo, KeyState
from hsm_core.operations import (
    BeginLedger,
    DescribeKey,
    ExtendRetention,
    HoldKey,
    LedgerStatus,
    ListKeys,
    ListVersions,
    ReleaseKey,
    RetentionReport,
    RetentionStatus,
)
from hsm_server.ui.actions import (
    Action,
    FormPages,
    KeyWithVersions,
    RejectedFormError,
    fields_of,
)
from hsm_server.ui.forms import Field, Form, Option, error_message
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View

_LIST: Final = f"{HOME}/retention"
_LOOKED_AT: Final = 500
"""Keys searched per page of legal holds, which have no index."""

_STATES: Final = {
    "due": ("retention window ended", "info"),
    "asked": ("approval requested", "warn"),
    "refused": ("denied or expired", ""),
    "scheduled": ("purge scheduled", "warn"),
    "ripe": ("purged at the next run", "bad"),
}
"""Description and badge of each state of a purge."""

_PAUSES: Final = {
    "leap": "the clock jumped; an approver must confirm the time",
    "limit": "more purges are due than the limit allows",
    "state": "the stored retention state was lost or altered",
    "approvals": "the policy has no approver for purges",
    "trail": "the audit log was altered",
    "ledger": "the retention ledger does not match the audit log",
}
_KEY: Final = Field(
    name="key",
    label="Key",
    hint="Key name or ID. Place a legal hold or extend its retention.",
    is_required=True,
    longest=64,
)


def _reason_fields(hint: str) -> Callable[[Any], Sequence[Field]]:
    field = Field(
        name="reason", label="Reason", hint=hint, is_required=True, longest=128
    )
    return lambda _: [field]


def _extension_fields(subject: KeyWithVersions) -> Sequence[Field]:
    options = tuple(
        Option(str(version.version), f"{version.version}, {version.state.value}")
        for version in reversed(subject.versions)
        if version.state is not KeyState.DESTROYED
    )
    label = "Retain until end of day (UTC)"
    return [
        Field(name="version", label="Version", kind="version", options=options),
        Field(name="until", label=label, kind="date", is_required=True),
    ]


def _is_sound(subject: KeyWithVersions) -> bool:
    key = subject.key
    return key.integrity is Integrity.OK and key.state is not KeyState.DESTROYED


_action: Final[Callable[..., Action[KeyWithVersions]]] = partial(
    Action, target=lambda subject: {"key_id": subject.key.key_id}
)
ACTIONS: Final[Sequence[Action[KeyWithVersions]]] = (
    _action(
        name="release",
        operation=ReleaseKey,
        title="Release the legal hold",
        verb="Release hold",
        done="Released the legal hold.",
        is_offered=lambda subject, _: bool(subject.key.hold),
        fields=_reason_fields("Recorded in the audit log."),
        tone="danger",
    ),
    _action(
        name="hold",
        operation=HoldKey,
        title="Place a legal hold",
        verb="Place hold",
        meaning="The key can't be purged or destroyed until you release the hold. "
        "Scheduled purges are cancelled.",
        done="Placed the legal hold.",
        is_offered=lambda subject, _: _is_sound(subject) and not subject.key.hold,
        fields=_reason_fields("Shown with the key and recorded in the audit log."),
    ),
    _action(
        name="extend",
        operation=ExtendRetention,
        title="Extend retention of a version",
        verb="Extend retention",
        meaning="You can't shorten it again.",
        done="Extended the retention.",
        is_offered=lambda subject, _: (
            _is_sound(subject)
            and any(v.state is not KeyState.DESTROYED for v in subject.versions)
        ),
        fields=_extension_fields,
    ),
)
"""Actions on a key, in display order."""

NEW_LEDGER: Final[Action[None]] = Action(
    name="ledger",
    operation=BeginLedger,
    verb="Start a new ledger",
    done="Started a new ledger.",
    fields=_reason_fields(""),
    tone="danger",
    has_generation=False,
)
"""Start of a new retention ledger."""


def report_values(
    report: RetentionReport, rejected: RejectedFormError | None = None
) -> dict[str, Any]:
    """Return the values of the page of a report, and of a rejected new ledger."""
    return {
        "report": report,
        "states": _STATES,
        "paused": _PAUSES.get(report.paused, report.paused),
        "more": max(0, report.queue - len(report.items)),
        "ledger_problem": _ledger_problem(report.ledger),
        "new_ledger": NEW_LEDGER,
        "is_rejected": rejected is not None,
        "ledger_fields": fields_of(NEW_LEDGER, None, rejected),
    }


def _ledger_problem(ledger: LedgerStatus | None) -> str:
    if ledger is None or ledger.available:
        return ledger.problem if ledger else ""
    return ledger.problem or "the ledger can't be written"


async def _report(
    view: View,
    _: None = None,
    rejected: RejectedFormError | None = None,
    *,
    key: Field = _KEY,
    error: HSMError | None = None,
) -> web.Response:
    """
    Show the retention report.

    Args:
        view: The browser's request.

        rejected: A rejected form for a new ledger.

        key: Field of the key search.

        error: Why the key was not found.
    """
    report = await view.execute(RetentionStatus())
    return view.render_form(
        "retention/overview.html",
        rejected.error if rejected else error,
        key=key,
        **report_values(report, rejected),
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
        held=[key for key in page.items if key.hold],
        looked_at=len(page.items),
        is_first=not cursor,
        next=f"{_LIST}/holds?cursor={quote(following)}" if following else "",
    )


async def _subject(view: View, _: Form | None = None) -> KeyWithVersions:
    key = await _describe(view, view.request.match_info["key_id"])
    versions = await view.execute(ListVersions(key_id=key.key_id))
    return KeyWithVersions(key, versions.items)


async def _describe(view: View, key_id: str) -> KeyInfo:
    return await view.execute(wire.convert({"key_id": key_id}, DescribeKey))


async def _key(view: View) -> web.Response:
    return await _show_key(view, await _subject(view))


async def _show_key(
    view: View, subject: KeyWithVersions, rejected: RejectedFormError | None = None
) -> web.Response:
    """Show a key's retention, or a rejected form."""
    return view.render_form(
        "retention/key.html",
        rejected.error if rejected else None,
        key=subject.key,
        versions=subject.versions[::-1],
        actions=[
            (action, fields_of(action, subject, rejected))
            for action in ACTIONS
            if action.is_offered(subject, view.who)
        ],
    )


async def _nothing(_: View, __: Form) -> None:
    """Return the subject of a new ledger."""


_ONE: Final = "/retention/keys/{key_id}"
_FORMS: Final = FormPages(
    _ONE,
    "retention.{}",
    find=_subject,
    show=_show_key,
    target=lambda subject, _: f"{_LIST}/keys/{subject.key.key_id}",
)
_LEDGER_FORM: Final = FormPages(
    "/retention",
    "retention.begin_ledger",
    find=_nothing,
    show=_report,
    target=lambda *_: _LIST,
)

PAGES: Final = (
    Page("GET", "/retention", _report, "retention.overview"),
    Page("GET", "/retention/find", _find, "retention.find"),
    Page("GET", "/retention/holds", _holds, "retention.holds"),
    Page("GET", _ONE, _key, "retention.key"),
    _LEDGER_FORM.page(NEW_LEDGER),
    *map(_FORMS.page, ACTIONS),
)
"""Pages of this module."""
