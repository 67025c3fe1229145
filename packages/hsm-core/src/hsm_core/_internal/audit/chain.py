# SPDX-License-Identifier: MIT
"""Chain of audit records: the writing end, the checking end, and the open intents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


class OpenIntents:
    """Intents without outcome, in the order of their records."""

    def __init__(self) -> None:
        self._seqs: dict[str, int] = {}

    def note(self, phase: Phase, operation_id: str, seq: int) -> None:
        """Update the open intents with one record."""
        if phase is Phase.INTENT:
            self._seqs.setdefault(operation_id, seq)
        elif phase is Phase.OUTCOME:
            self._seqs.pop(operation_id, None)

    def floor(self, seq: int) -> int:
        """Return the lowest seq of an open intent, or *seq* + 1 if there is none."""
        return next(iter(self._seqs.values()), seq + 1)


class Chain:
    """
    Writing end of one audit log. Not thread-safe: its owner holds a lock.

    Args:
        log_id: 32 hex digits.

        hmac_key: Key of the log.

        node: Name of this node, written to each record.

        mark: End of the log.

        intents: Intents without outcome up to there.
    """

    def __init__(
        self,
        *,
        log_id: str,
        hmac_key: bytes,
        node: str,
        mark: HeadMark,
        intents: OpenIntents,
    ) -> None:
        self.log_id = log_id
        self.seq = mark.seq
        self.leaf_hash = mark.leaf_hash
        self._set_digest = mark.set_digest
        self._node = node
        self._intents = intents
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
        seq, leaf = self.seq, self.leaf_hash
        lines = []
        for draft in drafts:
            seq += 1
            line = self._codec.encode(
                draft, node=self._node, seq=seq, prev=leaf, time=time
            )
            leaf = leaf_hash(line)
            lines.append(line + b"\n")
        self._commit(drafts)
        self.seq, self.leaf_hash = seq, leaf
        return lines

    def mark(self) -> HeadMark:
        """Return the head mark for when all records are synced."""
        return HeadMark(
            seq=self.seq,
            leaf_hash=self.leaf_hash,
            floor=self._intents.floor(self.seq),
            set_digest=self._set_digest,
        )

    def _commit(self, drafts: Iterable[AuditDraft]) -> None:
        for seq, draft in enumerate(drafts, self.seq + 1):
            self._intents.note(draft.phase, draft.operation_id, seq)
            self._set_digest = draft.set_digest or self._set_digest


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
