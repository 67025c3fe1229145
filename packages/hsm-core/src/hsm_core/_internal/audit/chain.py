# SPDX-License-Identifier: MIT
"""Chain of audit records: its end, the writing side, and the checking side."""

from __future__ import annotations

from collections.abc import Sequence

from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.record import (
    GENESIS,
    MAX_INTEGER,
    Reason,
    RecordCodec,
    leaf_hash,
    tampered,
)
from hsm_core.errors import InvalidInputError
from hsm_core.model import AuditEvent, Phase
from hsm_core.protocols import AuditDraft


class LogEnd:
    """
    End of an audit log: its newest record, open intents and newest set digest.

    Args:
        mark: Where it ends now; no intent is open, unless one is noted again.

    Attributes:
        seq: The newest record, -1 for none.
        leaf_hash: Its leaf hash, hex.
    """

    def __init__(self, mark: HeadMark) -> None:
        self.seq = mark.seq
        self.leaf_hash = mark.leaf_hash
        self._set_digest = mark.set_digest
        self._open: dict[str, tuple[int, AuditEvent | AuditDraft]] = {}

    def note(self, record: AuditEvent | AuditDraft, seq: int, leaf_hash: str) -> None:
        """Move on to the next record."""
        if record.phase is Phase.INTENT:
            self._open.setdefault(record.operation_id, (seq, record))
        elif record.phase is Phase.OUTCOME:
            self._open.pop(record.operation_id, None)
        self._set_digest = record.set_digest or self._set_digest
        self.seq, self.leaf_hash = seq, leaf_hash

    def mark(self) -> HeadMark:
        """Return the head mark for when all records are synced."""
        return HeadMark(
            seq=self.seq,
            leaf_hash=self.leaf_hash,
            floor=next(iter(self._open.values()))[0] if self._open else self.seq + 1,
            set_digest=self._set_digest,
        )

    def open_events(self) -> list[AuditEvent]:
        """Return the events of the intents without outcome, oldest first."""
        found = (record for _, record in self._open.values())
        return [record for record in found if isinstance(record, AuditEvent)]


class Chain:
    """
    Writing end of one audit log. Not thread-safe: its owner holds a lock.

    Args:
        log_id: 32 hex digits.

        hmac_key: Key of the log.

        node: Name of this node, written to each record.

        end: End of the log; taken over. None begins one.
    """

    def __init__(
        self, *, log_id: str, hmac_key: bytes, node: str, end: LogEnd | None = None
    ) -> None:
        self.log_id = log_id
        self.end = end or LogEnd(HeadMark())
        self._node = node
        self._codec = RecordCodec(log_id, hmac_key)

    def extend(self, drafts: Sequence[AuditDraft], now: int) -> list[bytes]:
        """
        Return the lines of the next records, each with its newline: all or none.

        Args:
            drafts: At least one.

            now: Microseconds since 1970-01-01T00:00:00Z.

        Raises:
            InvalidInputError: A draft can't be recorded; the chain is as it was.
        """
        if not drafts:
            raise InvalidInputError("No records to append.", field="drafts")
        time = min(max(now, 0), MAX_INTEGER)
        end, leaf = self.end, self.end.leaf_hash
        lines, leaves = [], []
        for seq, draft in enumerate(drafts, end.seq + 1):
            line = self._codec.encode(
                draft, node=self._node, seq=seq, prev=leaf, time=time
            )
            leaf = leaf_hash(line)
            lines.append(line + b"\n")
            leaves.append(leaf)
        for draft, leaf in zip(drafts, leaves, strict=True):
            end.note(draft, end.seq + 1, leaf)
        return lines


class Follower:
    """
    Checks the records of one log in order.

    Args:
        log_id: 32 hex digits; None accepts the id in the first record.

        hmac_key: None leaves the MACs unchecked.

        seq: The record before the first one to follow.

        leaf_hash: Its leaf hash; empty accepts the one in the first record.

        mark: Head mark; the record that it names must match it.

    Attributes:
        seq: The newest record that was followed; -1 for none.
        leaf_hash: Its leaf hash, hex.
        codec: Format of the records.
    """

    def __init__(
        self,
        *,
        log_id: str | None,
        hmac_key: bytes | None,
        seq: int = -1,
        leaf_hash: str = GENESIS,
        mark: HeadMark | None = None,
    ) -> None:
        self.seq = seq
        self.leaf_hash = leaf_hash
        self.mark = mark
        self.codec = RecordCodec(log_id, hmac_key)

    @property
    def log_id(self) -> str:
        """Id of the audit log; empty until the first record is followed."""
        return self.codec.log_id

    def follow(self, line: bytes) -> AuditEvent:
        """
        Check the next line, given without its newline, and move on to it.

        Raises:
            AuditTamperedError: It is not the next record; nothing has moved.
        """
        seq = self.seq + 1
        event = self.codec.decode(line, seq)
        if event.seq != seq:
            raise tampered(Reason.SEQUENCE, seq)
        if self.leaf_hash and event.prev != self.leaf_hash:
            raise tampered(Reason.CHAIN, seq)
        leaf = leaf_hash(line)
        mark = self.mark
        if mark is not None and mark.seq == seq and mark.leaf_hash != leaf:
            raise tampered(Reason.MARK, seq)
        self.seq, self.leaf_hash = seq, leaf
        return event

    def start_after(self, line: bytes, seq: int) -> None:
        """
        Start after a record without checking the records before it.

        Args:
            line: The record, without its newline.

            seq: Sequence number to report if it is bad.

        Raises:
            AuditTamperedError: It is no record of this log.
        """
        event = self.codec.decode(line, seq)
        self.seq, self.leaf_hash = event.seq, leaf_hash(line)
