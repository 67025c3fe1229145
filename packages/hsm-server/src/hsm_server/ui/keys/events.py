# SPDX-License-Identifier: MIT
"""Records of the trail about a key, as its pages show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hsm_core.model import AuditEntry, AuditEvent, CountedDetail, Phase
from hsm_core.operations import OPERATIONS, Effect
from hsm_server.ui.keys.presenters import Badge
from hsm_server.ui.visible_text import visible

_USES: Final = frozenset(
    operation.__name__ for operation in OPERATIONS if operation.effect is Effect.USE
)
"""Names of the operations that use a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One record of the trail about a key."""

    seq: int
    time: int
    kind: str
    principal: str
    outcome: Badge
    version: int
    detail: str
    approval_id: str
    leaf_hash: str


def event_rows(entries: Iterable[AuditEntry]) -> Sequence[EventRow]:
    """
    Return records of the trail, in the order in which they come.

    The intent of an operation is left out where its outcome is among them.
    """
    shown = list(entries)
    ended = {
        entry.event.operation_id
        for entry in shown
        if entry.event.phase is Phase.OUTCOME
    }
    return [
        _event_row(entry)
        for entry in shown
        if entry.event.phase is not Phase.INTENT
        or entry.event.operation_id not in ended
    ]


def _event_row(entry: AuditEntry) -> EventRow:
    event = entry.event
    return EventRow(
        seq=event.seq,
        time=event.time,
        kind=event.kind,
        principal=visible(event.caller.principal) if event.caller else "",
        outcome=_outcome(event),
        version=event.version,
        detail=_detail(event),
        approval_id=event.approval_id,
        leaf_hash=entry.leaf_hash,
    )


def _outcome(event: AuditEvent) -> Badge:
    if event.phase is Phase.INTENT:
        return Badge("begun", "info")
    return Badge(event.code, "ok" if event.code == "ok" else "bad")


def _detail(event: AuditEvent) -> str:
    reason = event.parameters.get("reason", "")
    if isinstance(event.detail, CountedDetail):
        return f"{event.detail.count:,} times"
    return visible(reason) if isinstance(reason, str) else ""


def last_use(rows: Iterable[EventRow]) -> EventRow | None:
    """Return the newest use of the key that succeeded, if it is among these."""
    return next(
        (row for row in rows if row.kind in _USES and row.outcome.text == "ok"), None
    )
