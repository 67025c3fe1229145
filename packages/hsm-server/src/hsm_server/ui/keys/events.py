# SPDX-License-Identifier: MIT
"""Audit records of a key, as its pages show them."""

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
"""Names of operations that use a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """An audit record of a key."""

    seq: int
    time: int
    kind: str
    principal: str
    outcome: Badge
    version: int
    detail: str
    approval_id: str
    leaf_hash: str


def event_rows(entries: Iterable[AuditEntry]) -> Sequence[HistoryRow]:
    """
    Return audit records, in the given order.

    An intent is left out if its outcome is among them.
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


def _event_row(entry: AuditEntry) -> HistoryRow:
    event = entry.event
    return HistoryRow(
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
        return Badge("started", "info")
    return Badge(event.code, "ok" if event.code == "ok" else "bad")


def _detail(event: AuditEvent) -> str:
    reason = event.parameters.get("reason", "")
    if isinstance(event.detail, CountedDetail):
        return f"{event.detail.count:,} times"
    return visible(reason) if isinstance(reason, str) else ""


def last_use(rows: Iterable[HistoryRow]) -> HistoryRow | None:
    """Return the newest successful use of the key among these, if any."""
    return next(
        (row for row in rows if row.kind in _USES and row.outcome.text == "ok"), None
    )
