# SPDX-License-Identifier: MIT
"""Views of the trail: ListAuditEvents, VerifyAudit."""

from __future__ import annotations

from typing import Final

from hsm_core import operations as ops
from hsm_core._internal.audit.events import event_of
from hsm_core._internal.audit.reading import lines_from
from hsm_core._internal.audit.record import leaf_hash
from hsm_core._internal.handlers.base import Answer, Handler, Subject
from hsm_core.model import AuditEntry, AuditEvent
from hsm_core.protocols import AuditHead

__all__ = ["ListAuditEventsHandler", "VerifyAuditHandler"]

_BLOCK: Final = 500
_SCANNED: Final = 10_000
"""Records that one call looks at, so that a rare filter can't hold it for long."""


class ListAuditEventsHandler(Handler[ops.ListAuditEvents, ops.AuditPage]):
    """Show events, newest or oldest first."""

    def perform(
        self, subject: Subject[ops.ListAuditEvents], /
    ) -> Answer[ops.AuditPage]:
        """Walk the trail a block at a time until the page or the bound is full."""
        operation, head = subject.operation, self._services.audit.head()
        wanted = self._wanted_keys(operation.key_id)
        items: list[AuditEntry] = []
        first = self._services.audit.first_seq
        position = _start(operation, head, first)
        scanned = 0
        while first <= position <= head.seq and scanned < _SCANNED:
            block = self._block(position, ascending=operation.ascending)
            for entry in block:
                if len(items) == operation.limit:
                    break
                position = entry.event.seq + (1 if operation.ascending else -1)
                scanned += 1
                if _matches(entry.event, operation, wanted):
                    items.append(entry)
            if len(items) == operation.limit or not block:
                break
        oldest = 0 if operation.ascending else self._services.audit.first_seq
        more = oldest <= position <= head.seq
        return Answer(
            ops.AuditPage(
                items=tuple(items),
                next_seq=position if more else None,
                head_seq=head.seq,
                head_hash=head.leaf_hash,
            )
        )

    def _wanted_keys(self, reference: str) -> frozenset[str]:
        """Return the ids that a filter stands for; names may change their key."""
        entry = self._services.inventory.entry(reference) if reference else None
        return frozenset({reference, entry.key_id if entry else reference})

    def _block(self, position: int, *, ascending: bool) -> list[AuditEntry]:
        """Return entries around a position; none if they were pruned meanwhile."""
        wanted = position if ascending else max(0, position - _BLOCK + 1)
        first, lines = lines_from(self._services.audit, wanted, _BLOCK)
        if not ascending:
            lines = lines[: max(position + 1 - first, 0)]
        entries = [
            AuditEntry(event=event_of(line, first + n), leaf_hash=leaf_hash(line))
            for n, line in enumerate(lines)
        ]
        return entries if ascending else entries[::-1]

    def is_quick(self, operation: ops.ListAuditEvents, /) -> bool:
        """Never: it reads files."""
        return False


class VerifyAuditHandler(Handler[ops.VerifyAudit, ops.AuditVerification]):
    """Verify a range of the trail."""

    def perform(
        self, subject: Subject[ops.VerifyAudit], /
    ) -> Answer[ops.AuditVerification]:
        """Check it, and say how far it got."""
        operation = subject.operation
        return Answer(self._services.verify_range(operation.start_seq, operation.limit))

    def is_quick(self, operation: ops.VerifyAudit, /) -> bool:
        """Never: it reads files."""
        return False


def _start(operation: ops.ListAuditEvents, head: AuditHead, first: int) -> int:
    if operation.start_seq is None:
        return first if operation.ascending else head.seq
    if operation.ascending:
        return max(operation.start_seq, first)
    return min(operation.start_seq, head.seq)


def _matches(
    event: AuditEvent, operation: ops.ListAuditEvents, wanted: frozenset[str]
) -> bool:
    principal = event.caller.principal if event.caller else ""
    return (
        (not operation.key_id or event.key_id in wanted)
        and operation.principal in ("", principal)
        and operation.kind in ("", event.kind)
    )
