# SPDX-License-Identifier: MIT
"""What may be done about retention, as data: what it asks for, means and becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any, Final, TypeAlias

from hsm_core import wire
from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyInfo
from hsm_core.operations import (
    BeginLedger,
    ExtendRetention,
    HoldKey,
    Operation,
    ReleaseKey,
)
from hsm_server.ui.fields import Field, Option
from hsm_server.ui.forms import Form
from hsm_server.ui.retention.presenting import ShownKey

Tree: TypeAlias = dict[str, Any]

_DAY: Final = "%Y-%m-%d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    One thing that may be done about the retention of a key.

    Attributes:
        name: In its path.
        operation: What it becomes.
        title: What it is called.
        verb: What stands on its button.
        meaning: What it does; may be empty.
        done: What is said when it is done; formatted with the operation.
        is_offered: Whether it is offered for a key; a courtesy, for the core decides.
        fields: What it asks for.
        read: The operation's fields but the key, from what was given.
        is_dangerous: Whether something may be purged then that was kept before.
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


def offered(key: ShownKey) -> Sequence[Change]:
    """Return what may be done about the retention of a key."""
    return [change for change in CHANGES.values() if change.is_offered(key)]


def operation_of(change: Change, key_id: str, form: Form) -> Operation[KeyInfo]:
    """
    Return the operation that a form asks for.

    Raises:
        InvalidInputError: A field breaks a rule; the message names it.
    """
    return wire.convert({**change.read(form), "key_id": key_id}, change.operation)


def begin_ledger_of(form: Form) -> BeginLedger:
    """
    Return the operation that begins a new ledger.

    Raises:
        InvalidInputError: The reason is missing, or breaks a rule.
    """
    return wire.convert(_read_reason(form), BeginLedger)


def ask_reason(hint: str = "") -> Sequence[Field]:
    """Ask why."""
    return [
        Field(name="reason", label="Reason", hint=hint, is_required=True, longest=128)
    ]


def _read_reason(form: Form) -> Tree:
    reason = form["reason"].strip()
    if not reason:
        raise InvalidInputError("Say why; it stands in the trail.", field="reason")
    return {"reason": reason}


def _ask_extension(key: ShownKey) -> Sequence[Field]:
    options = [
        Option(str(row.version), f"{row.version}, {row.state}")
        for row in key.versions
        if row.may_be_kept
    ]
    return [
        Field(name="version", label="Version", kind="select", options=tuple(options)),
        Field(
            name="until",
            label="Until the end of (UTC)",
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
            "Give a date here, such as 2031-12-31.", field="until"
        ) from None
    return datetime.combine(day, time(23, 59, 59), UTC).isoformat()


_ROWS: Final = (
    Change(
        name="release",
        operation=ReleaseKey,
        title="Release it",
        verb="Release this key",
        meaning="",
        done="The key is held no more.",
        is_offered=lambda key: bool(key.hold),
        fields=lambda _: ask_reason("Kept in the trail"),
        read=_read_reason,
        is_dangerous=True,
    ),
    Change(
        name="hold",
        operation=HoldKey,
        title="Hold it",
        verb="Hold this key",
        meaning="Nothing of it is purged or destroyed until it is released. What waits "
        "for a purge is given back.",
        done="The key is on hold.",
        is_offered=lambda key: key.can_hold,
        fields=lambda _: ask_reason("Shown with the key, and kept in the trail"),
        read=_read_reason,
    ),
    Change(
        name="extend",
        operation=ExtendRetention,
        title="Keep a version for longer",
        verb="Keep it",
        meaning="This can't be made shorter again.",
        done="Version {0.version} is kept until {0.until} at least.",
        is_offered=lambda key: key.can_extend,
        fields=_ask_extension,
        read=_read_extension,
    ),
)

CHANGES: Final = {change.name: change for change in _ROWS}
"""Every change by its name, in the order in which they are shown."""
