# SPDX-License-Identifier: MIT
"""Records of the trail as a page shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from hsm_core import wire
from hsm_core.model import AuditEntry, AuditEvent, Phase
from hsm_server.ui.visible_text import visible

_BADGES: Final = {"ok": "ok", "approval_required": "warn"}


@dataclass(frozen=True, slots=True)
class EventRow:
    """
    One record.

    Attributes:
        at: Microseconds since 1970, by the clock that wrote it.
        outcome: ``intent``, ``ok`` or the code of an error.
        badge: How *outcome* is marked.
        key_name: Its name then, or its id, or empty.
    """

    seq: int
    at: int
    principal: str
    roles: str
    kind: str
    outcome: str
    badge: str
    key_id: str
    key_name: str
    version: int
    approval_id: str
    rule: str
    address: str
    request_id: str
    operation_id: str
    previous_hash: str
    leaf_hash: str


def present(entry: AuditEntry) -> EventRow:
    """Return a record as a page shows it."""
    event, who, key = entry.event, entry.event.caller, entry.event.key
    outcome, badge = _outcome(event)
    return EventRow(
        seq=event.seq,
        at=event.time,
        principal=visible(who.principal) if who else "",
        roles=visible(", ".join(who.roles)) if who else "",
        kind=visible(event.kind),
        outcome=visible(outcome),
        badge=badge,
        key_id=visible(event.key_id),
        key_name=visible((key.name if key else "") or event.key_id),
        version=event.version,
        approval_id=visible(event.approval_id),
        rule=visible(event.rule),
        address=visible(who.source_address) if who else "",
        request_id=visible(event.request_id),
        operation_id=visible(event.operation_id),
        previous_hash=event.prev,
        leaf_hash=entry.leaf_hash,
    )


def _outcome(event: AuditEvent) -> tuple[str, str]:
    if event.phase is Phase.INTENT:
        return "intent", "info"
    return event.code, _BADGES.get(event.code, "bad")


def record_text(entry: AuditEntry) -> str:
    """Return a whole record as JSON (RFC 8259), in ASCII and with line breaks."""
    tree = json.loads(wire.encode_json(entry))
    return json.dumps(tree, indent=2, ensure_ascii=True)


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far a verification got.

    Attributes:
        begun_seq: First record that was checked.
        next_seq: Where to go on; None at the end.
        checked: Records checked since *begun_seq*.
        total: Records from there to the head.
        percent: Of them, rounded down.
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
) -> Progress:
    """Return how far a verification got that began at *begun_seq*."""
    total = head_seq + 1 - begun_seq
    end = head_seq + 1 if next_seq is None else next_seq
    checked = min(end - begun_seq, total)
    percent = 100 * checked // total if total > 0 else 100
    return Progress(begun_seq, next_seq, checked, total, percent, head_seq, head_hash)
