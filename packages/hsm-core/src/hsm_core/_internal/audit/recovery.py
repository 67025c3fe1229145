# SPDX-License-Identifier: MIT
"""Recovery of an audit log at opening: its end, its open intents, its set digest."""

from __future__ import annotations

from dataclasses import dataclass

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.chain import Follower, OpenIntents
from hsm_core._internal.audit.head_mark import HeadMark, StoredHead
from hsm_core._internal.audit.record import Reason, tampered
from hsm_core._internal.audit.verify import StoredLog, first_follower, follow
from hsm_core.model import AuditEvent, Phase


@dataclass(frozen=True, slots=True)
class RecoveredLog:
    """
    Verified audit log, ready for appending.

    Attributes:
        head: Stored head mark.
        mark: End of the log.
        intents: Intents without outcome up to there.
        open_events: Their events, oldest first.
        baseline: Baseline of pruned records.
    """

    head: StoredHead
    mark: HeadMark
    intents: OpenIntents
    open_events: list[AuditEvent]
    baseline: Baseline | None


def recover(stored: StoredLog, hmac_key: bytes) -> RecoveredLog:
    """
    Verify an audit log from the first record that the head mark needs; write nothing.

    Args:
        stored: The audit log.

        hmac_key: Key of the audit log.

    Raises:
        AuditTamperedError: It was altered.
        AuditUnavailableError: It can't be read.
    """
    head = stored.head
    if head is None:
        raise tampered(Reason.HEAD_MISSING, 0)
    replay = IntentReplay(head.mark)
    follower = skip_to_needed(stored, hmac_key)
    follow(stored, follower, replay.note)
    return RecoveredLog(
        head=head,
        mark=replay.mark(follower.seq, follower.leaf_hash),
        intents=replay.intents,
        open_events=replay.open_events(),
        baseline=stored.baseline,
    )


def skip_to_needed(stored: StoredLog, hmac_key: bytes) -> Follower:
    """
    Return a follower before the first record that the head mark or an intent needs.

    Raises:
        AuditTamperedError: Records are missing that the baseline does not cover.
    """
    follower = first_follower(stored, hmac_key)
    start = follower.seq, follower.leaf_hash
    mark = follower.mark or HeadMark()
    needed = min(mark.floor, max(mark.seq, 0))
    for seq, line in stored.anchors(needed):
        if follower.codec.is_record(line):
            follower.start_after(line, seq)
            if follower.seq < needed:
                return follower
    # Records are read from the start, so that the first bad one is named.
    follower.seq, follower.leaf_hash = start
    return follower


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
        """Return the head mark of a log that ends with the record *seq*."""
        return HeadMark(
            seq=seq,
            leaf_hash=leaf_hash,
            floor=self.intents.floor(seq),
            set_digest=self._set_digest,
        )
