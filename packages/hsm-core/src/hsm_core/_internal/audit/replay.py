# SPDX-License-Identifier: MIT
"""Replay of audit records at opening: open intents and the newest set digest."""

from __future__ import annotations

from hsm_core._internal.audit.chain import OpenIntents
from hsm_core._internal.audit.mark import HeadMark
from hsm_core.model import AuditEvent, Phase


class IntentReplay:
    """
    Collects intents without outcome and the newest set digest, from events in order.

    Args:
        mark: Head mark; its set digest applies until an event has another.

    Attributes:
        intents: Those without outcome.
    """

    def __init__(self, mark: HeadMark) -> None:
        self.intents = OpenIntents()
        self._events: dict[str, AuditEvent] = {}
        self._set_digest = mark.set_digest

    def note(self, event: AuditEvent) -> None:
        """Update the state with the next event."""
        if event.phase is not Phase.SINGLE:
            self.intents.note(event.phase, event.operation_id, event.seq)
            if event.phase is Phase.INTENT:
                self._events.setdefault(event.operation_id, event)
            else:
                self._events.pop(event.operation_id, None)
        self._set_digest = event.set_digest or self._set_digest

    def open_events(self) -> list[AuditEvent]:
        """Return the events of the intents without outcome, oldest first."""
        return list(self._events.values())

    def mark(self, seq: int, leaf_hash: str) -> HeadMark:
        """Return the head mark of a trail that ends with the record *seq*."""
        return HeadMark(
            seq=seq,
            leaf_hash=leaf_hash,
            floor=self.intents.floor(seq),
            set_digest=self._set_digest,
        )
