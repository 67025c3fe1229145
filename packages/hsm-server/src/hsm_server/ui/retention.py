# SPDX-License-Identifier: MIT
"""Retention pages: queue, legal holds, changes of one key, new ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from aiohttp import web

from hsm_core import wire
from hsm_core.errors import ConflictError, HSMError, InvalidInputError, KeyNotFoundError
from hsm_core.model import Integrity, KeyInfo, KeyState, VersionInfo
from hsm_core.operations import (
    BeginLedger,
    DescribeKey,
    ExtendRetention,
    HoldKey,
    LedgerStatus,
    ListKeys,
    ListVersions,
    Operation,
    PurgeItem,
    ReleaseKey,
    RetentionReport,
    RetentionStatus,
)
from hsm_server.ui.forms import (
    Field,
    Form,
    Option,
    error_message,
    fill_fields,
    mark_error,
)
from hsm_server.ui.rendering import microseconds, visible
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View

_STATES: Final = {
    "due": ("retention window ended", "info"),
    "asked": ("approval requested", "warn"),
    "refused": ("denied or expired", ""),
    "scheduled": ("purge scheduled", "warn"),
    "ripe": ("purged at the next run", "bad"),
}
_PAUSES: Final = {
    "leap": "the clock jumped; an approver must confirm the time",
    "limit": "the purges due exceed the limit",
    "state": "the stored retention state was lost or altered",
    "approvals": "the policy has no approver for purges",
    "trail": "the audit log was altered",
    "ledger": "the retention ledger does not match the audit log",
}


@dataclass(frozen=True, slots=True)
class DueRow:
    """
    Key material that is due or scheduled for purge.

    Attributes:
        words: Description of *state*.
        badge: Its badge.
    """

    key_id: str
    versions: str
    state: str
    words: str
    badge: str
    due_at: int
    window_days: int
    rule: str
    purge_at: int
    approval_id: str


@dataclass(frozen=True, slots=True)
class ReportView:
    """
    The retention report, as a page shows it.

    Attributes:
        paused: Why purges are paused, or empty.
        more: Number of queued items that are not in *items*.
        ledger_problem: Problem of the ledger, or empty.
    """

    enabled: bool
    policy_sha256: str
    default_days: int
    loaded_at: int
    problem: str
    paused: str
    pause_approval_id: str
    queue: int
    scheduled_total: int
    cancelled_total: int
    completed_total: int
    failures: int
    swept_at: int
    items: tuple[DueRow, ...]
    more: int
    ledger: LedgerStatus | None
    ledger_problem: str


def present(report: RetentionReport) -> ReportView:
    """Return the retention report, as a page shows it."""
    paused = _PAUSES.get(report.paused, visible(report.paused))
    return ReportView(
        enabled=report.enabled,
        policy_sha256=report.policy_sha256,
        default_days=report.default_days,
        loaded_at=microseconds(report.loaded_at),
        problem=visible(report.problem),
        paused=paused,
        pause_approval_id=report.pause_approval_id,
        queue=report.queue,
        scheduled_total=report.scheduled_total,
        cancelled_total=report.cancelled_total,
        completed_total=report.completed_total,
        failures=report.failures,
        swept_at=microseconds(report.swept_at),
        items=tuple(map(_due_row, report.items)),
        more=max(0, report.queue - len(report.items)),
        ledger=report.ledger,
        ledger_problem=_ledger_problem(report.ledger),
    )


def _ledger_problem(ledger: LedgerStatus | None) -> str:
    if ledger is None:
        return ""
    return visible(ledger.problem) or (
        "" if ledger.available else "the ledger can't be written"
    )


def _due_row(item: PurgeItem) -> DueRow:
    words, badge = _STATES.get(item.state, (item.state, ""))
    return DueRow(
        key_id=item.key_id,
        versions=", ".join(map(str, item.versions)),
        state=item.state,
        words=words,
        badge=badge,
        due_at=microseconds(item.due_at),
        window_days=item.window_days,
        rule=visible(item.rule),
        purge_at=microseconds(item.purge_at),
        approval_id=item.approval_id,
    )


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A key on legal hold."""

    key_id: str
    name: str
    algorithm: str
    hold: str


def held_row(key: KeyInfo) -> HeldRow:
    """Return a key on legal hold."""
    return HeldRow(
        key.key_id,
        visible(key.name),
        key.algorithm.value if key.algorithm else "",
        visible(key.hold),
    )


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """Retention of one key version."""

    version: int
    state: str
    retired_at: int
    revoked_at: int
    purge_at: int
    retain_until: int
    may_be_kept: bool


@dataclass(frozen=True, slots=True)
class ShownKey:
    """
    A key with its retention.

    Attributes:
        can_hold: Whether a legal hold is offered.
        can_extend: Whether a version's retention can be extended.
    """

    key_id: str
    name: str
    algorithm: str
    state: str
    generation: int
    hold: str
    destroy_at: int
    versions: tuple[RetentionRow, ...]
    can_hold: bool
    can_extend: bool


def present_key(key: KeyInfo, versions: tuple[VersionInfo, ...]) -> ShownKey:
    """Return a key and its versions, newest first."""
    rows = tuple(map(_version_row, reversed(versions)))
    sound = key.integrity is Integrity.OK and key.state is not KeyState.DESTROYED
    return ShownKey(
        key_id=key.key_id,
        name=visible(key.name),
        algorithm=key.algorithm.value if key.algorithm else "",
        state=key.state.value if key.state else "unknown",
        generation=key.generation,
        hold=visible(key.hold),
        destroy_at=microseconds(key.destroy_at),
        versions=rows,
        can_hold=sound and not key.hold,
        can_extend=sound and any(row.may_be_kept for row in rows),
    )


def _version_row(version: VersionInfo) -> RetentionRow:
    return RetentionRow(
        version=version.version,
        state=version.state.value,
        retired_at=microseconds(version.retired_at),
        revoked_at=microseconds(version.revoked_at),
        purge_at=microseconds(version.purge_at),
        retain_until=microseconds(version.retain_until),
        may_be_kept=version.state is not KeyState.DESTROYED,
    )


Tree: TypeAlias = dict[str, Any]

_DAY: Final = "%Y-%m-%d"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionChange:
    """
    A retention change of a key.

    Attributes:
        name: Name in the path.
        operation: Operation that it executes.
        title: Title of its section.
        verb: Label of its button.
        meaning: Its effect; may be empty.
        done: Message on success, formatted with the operation.
        is_offered: Whether it is offered for a key. The core checks it again.
        fields: Fields of its form.
        read: Reads the operation's fields, except the key, from the form.
        is_dangerous: Whether it permits purges that were blocked before.
    """

    name: str
    operation: type[Operation[KeyInfo]]
    title: str
    verb: str
    meaning: str
    done: str
    is_offered: Callable[[ShownKey], bool]
    fields: Callable[[ShownKey], Sequence[Field]]
    read: Callable[[Form], Tree]
    is_dangerous: bool = False


def offered_changes(key: ShownKey) -> Sequence[RetentionChange]:
    """Return the retention changes to offer for a key."""
    return [change for change in CHANGES.values() if change.is_offered(key)]


def build_operation(
    change: RetentionChange, key_id: str, form: Form
) -> Operation[KeyInfo]:
    """
    Return the operation of a submitted form.

    Raises:
        InvalidInputError: A field is invalid; the message names it.
    """
    return wire.convert({**change.read(form), "key_id": key_id}, change.operation)


def build_ledger_start(form: Form) -> BeginLedger:
    """
    Return the operation that starts a new ledger.

    Raises:
        InvalidInputError: The reason is missing or invalid.
    """
    return wire.convert(_read_reason(form), BeginLedger)


def reason_fields(hint: str = "") -> Sequence[Field]:
    """Return the reason field."""
    return [
        Field(name="reason", label="Reason", hint=hint, is_required=True, longest=128)
    ]


def _read_reason(form: Form) -> Tree:
    reason = form["reason"].strip()
    if not reason:
        raise InvalidInputError(
            "Enter a reason. It is recorded in the audit log.", field="reason"
        )
    return {"reason": reason}


def _extension_fields(key: ShownKey) -> Sequence[Field]:
    options = [
        Option(str(row.version), f"{row.version}, {row.state}")
        for row in key.versions
        if row.may_be_kept
    ]
    return [
        Field(name="version", label="Version", kind="select", options=tuple(options)),
        Field(
            name="until",
            label="Retain until the end of (UTC)",
            kind="date",
            is_required=True,
        ),
    ]


def _read_extension(form: Form) -> Tree:
    return {"version": form.number("version"), "until": _end_of_day(form["until"])}


def _end_of_day(text: str) -> str:
    """Return the end of a day in UTC, as an instant (RFC 3339)."""
    try:
        day = datetime.strptime(text, _DAY).date()
    except ValueError:
        raise InvalidInputError(
            "until must be a date, such as 2031-12-31.", field="until"
        ) from None
    return datetime.combine(day, time(23, 59, 59), UTC).isoformat()


_ROWS: Final = (
    RetentionChange(
        name="release",
        operation=ReleaseKey,
        title="Release the legal hold",
        verb="Release hold",
        meaning="",
        done="Released the legal hold.",
        is_offered=lambda key: bool(key.hold),
        fields=lambda _: reason_fields("Recorded in the audit log."),
        read=_read_reason,
        is_dangerous=True,
    ),
    RetentionChange(
        name="hold",
        operation=HoldKey,
        title="Place a legal hold",
        verb="Place hold",
        meaning="The key can't be purged or destroyed until you release the hold. "
        "Scheduled purges are cancelled.",
        done="Placed the legal hold.",
        is_offered=lambda key: key.can_hold,
        fields=lambda _: reason_fields(
            "Shown with the key and recorded in the audit log."
        ),
        read=_read_reason,
    ),
    RetentionChange(
        name="extend",
        operation=ExtendRetention,
        title="Extend retention of a version",
        verb="Extend retention",
        meaning="You can't shorten it again.",
        done="Version {0.version} is retained until at least {0.until}.",
        is_offered=lambda key: key.can_extend,
        fields=_extension_fields,
        read=_read_extension,
    ),
)

CHANGES: Final = {change.name: change for change in _ROWS}
"""Changes by name, in display order."""


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
