# SPDX-License-Identifier: MIT
"""Retention changes of a key: title, form and operation of each."""

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
