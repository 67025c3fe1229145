# SPDX-License-Identifier: MIT
"""Audit records and verification progress as pages show them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from hsm_core import wire
from hsm_core.model import AuditEntry, AuditEvent, Phase
from hsm_server.ui.visible_text import visible

_BADGES: Final = {"ok": "ok", "approval_required": "warn"}


@dataclass(frozen=True, slots=True)
class AuditRow:
    """
    One audit record.

    Attributes:
        at: Microseconds since 1970, by the writer's clock.
        outcome: ``intent``, ``ok`` or the code of an error.
        badge: Badge of *outcome*.
        key_name: The key's name at that time, or its ID, or empty.
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


def present(entry: AuditEntry) -> AuditRow:
    """Return an audit record as a page shows it."""
    event, who, key = entry.event, entry.event.caller, entry.event.key
    outcome, badge = _outcome(event)
    return AuditRow(
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
