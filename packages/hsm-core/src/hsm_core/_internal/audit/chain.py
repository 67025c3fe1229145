# SPDX-License-Identifier: MIT
"""Chain of audit records: its end, the writing side, and the checking side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from struct import pack
from typing import TypeAlias

import msgspec

from hsm_core._internal.audit.facts import FactsTrack, Record, entry_of
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import (
    BEGUN,
    CLOSED,
    GENESIS,
    MAX_INTEGER,
    PREV,
    SEQ,
    Entry,
    RecordCodec,
    check_facts,
    check_members,
    claimed_seq,
    decode_entry,
    event_from,
    is_log_close,
    leaf_hash,
)
from hsm_core._internal.audit.uses import Line, Uses
from hsm_core.errors import AuditUnavailableError, InvalidInputError
from hsm_core.model import AuditEvent, LogBegunDetail, Phase
from hsm_core.protocols import AuditDraft, UseDraft

_Opened: TypeAlias = Mapping[str, tuple[int, AuditEvent | AuditDraft]]


class LogEnd(msgspec.Struct, frozen=True):
    """
    End of an audit log: its newest record, open intents and newest set digest.

    Attributes:
        mark: The head mark for when all records are synced.
        opened: Sequence number and record of each intent without outcome, oldest first.
        is_closed: Whether the newest record ends the log for good.
    """

    mark: HeadMark = HeadMark()
    opened: _Opened = {}
    is_closed: bool = False

    @classmethod
    def at(cls, mark: HeadMark) -> LogEnd:
        """Return the end at a mark; no intent is open, unless one is noted again."""
        return cls().after_use(mark.seq, mark.leaf_hash, mark.set_digest)

    def after(
        self, record: AuditEvent | AuditDraft, seq: int, leaf_hash: str
    ) -> LogEnd:
        """Return the end after one more record."""
        opened = dict(self.opened)
        if record.phase is Phase.INTENT:
            opened.setdefault(record.operation_id, (seq, record))
        elif record.phase is Phase.OUTCOME:
            opened.pop(record.operation_id, None)
        found = LogEnd(self.mark, opened, record.kind == CLOSED)
        return found.after_use(seq, leaf_hash, record.set_digest)

    def after_use(self, seq: int, leaf_hash: str, set_digest: str = "") -> LogEnd:
        """Return the end after records that open and settle nothing."""
        opened = self.opened
        mark = HeadMark(
            seq=seq,
            leaf_hash=leaf_hash,
            floor=next(iter(opened.values()))[0] if opened else seq + 1,
            set_digest=set_digest or self.mark.set_digest,
        )
        return LogEnd(mark, opened, self.is_closed)

    def open_events(self) -> list[AuditEvent]:
        """Return the events of the intents without outcome, oldest first."""
        found = (record for _, record in self.opened.values())
        return [record for record in found if isinstance(record, AuditEvent)]


class Chain:
    """
    Writing end of one audit log. Not thread-safe: its owner holds a lock.

    Args:
        log_id: 32 hex digits.

        hmac_key: Key of the log.

        node: Name of this node, written to the first record.

        random: Source of salts.

        end: End of the log; the default begins one.

    Attributes:
        end: Where it ends now; set back to an earlier end if records were not written.
    """

    def __init__(
        self,
        *,
        log_id: str,
        hmac_key: bytes,
        node: str,
        random: Callable[[int], bytes],
        end: LogEnd = LogEnd(),  # noqa: B008 (it is immutable)
    ) -> None:
        self.log_id = log_id
        self.end = end
        self._node = node
        self._codec = RecordCodec(log_id, hmac_key, random)

    @property
    def next_seq(self) -> int:
        """Sequence number that the next draft gets."""
        return max(self.end.mark.seq, 0) + 1

    def extend(self, drafts: Sequence[AuditDraft | UseDraft], now: int) -> list[Record]:
        """
        Return the next records: all or none.

        A new log begins with a record that names it.

        Args:
            drafts: At least one.

            now: Microseconds since 1970-01-01T00:00:00Z.

        Raises:
            InvalidInputError: A draft can't be recorded; the chain is as it was.
            AuditUnavailableError: The log was closed for good.
        """
        if not drafts:
            raise InvalidInputError("No records to append.", field="drafts")
        end, codec = self.end, self._codec
        seq, leaf = end.mark.seq, end.mark.leaf_hash
        if end.is_closed:
            raise AuditUnavailableError("The audit log was closed for good.")
        if seq < 0:
            drafts = [self._begun(), *drafts]
        if not 0 <= now <= MAX_INTEGER:
            now = min(max(now, 0), MAX_INTEGER)
        if len(drafts) == 1 and isinstance(drafts[0], UseDraft):
            record, leaf = codec.encode_use(drafts[0], seq + 1, leaf, now)
            self.end = end.after_use(seq + 1, leaf)
            return [record]
        records: list[Record] = []
        for draft in drafts:
            seq += 1
            if isinstance(draft, UseDraft):
                record, leaf = codec.encode_use(draft, seq, leaf, now)
            else:
                record, leaf = codec.encode(draft, seq, leaf, now)
                end = end.after(draft, seq, leaf)
            records.append(record)
        self.end = end.after_use(seq, leaf)
        return records

    def _begun(self) -> AuditDraft:
        detail = LogBegunDetail(log_id=self.log_id, node=self._node)
        return AuditDraft(phase=Phase.SINGLE, kind=BEGUN, detail=detail)


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
        self._is_closed = False

    @property
    def log_id(self) -> str:
        """Id of the audit log; empty until the first record is followed."""
        return self.codec.log_id

    def follow(self, record: bytes) -> AuditEvent:
        """
        Check the next record, given without its newline, and move on to it.

        Raises:
            AuditTamperedError: It is not the next record; nothing has moved.
        """
        seq = self.seq + 1
        entry = entry_of(record)
        self.codec.authenticate(entry, seq)
        event = event_from(record, self._members(entry, seq), seq)
        self._step(entry, seq)
        return event

    def check(self, record: bytes) -> None:
        """
        Check the next record without reading its members, and move on to it.

        Raises:
            AuditTamperedError: It is not the next record; nothing has moved.
        """
        seq = self.seq + 1
        entry = entry_of(record)
        self.codec.authenticate(entry, seq)
        check_facts(record, seq)
        self._step(entry, seq)

    def advance(self, entry: bytes, facts: FactsTrack) -> None:
        """
        Check the next entry of a stored log, and move on to it.

        Args:
            entry: Without its newline.

            facts: The facts lines before it.

        Raises:
            AuditTamperedError: It is not the next entry; nothing has moved.
        """
        seq = self.seq + 1
        self.codec.authenticate(entry, seq)
        check_members(entry, seq)
        facts.check(entry, seq)
        self._step(entry, seq)

    def follow_uses(self, lines: Sequence[Line], facts: FactsTrack) -> int:
        """
        Move on over uses if all are good, and return how many; else nothing has moved.

        The record that the head mark names, and those after it, are not followed here.

        Args:
            lines: Entries of uses that come next.

            facts: The facts lines before them.
        """
        if self.mark is not None:
            lines = lines[: max(self.mark.seq - self.seq - 1, 0)]
        if not lines or self.seq < 0 or self._is_closed:
            return 0
        first, last = self.seq + 1, self.seq + len(lines)
        uses = Uses.of(lines)
        leaves = [sha256(entry).hexdigest() for entry in uses.entries]
        if not (
            facts.serve(set(uses.facts), last)
            and b"".join(uses.seqs) == _seqs(first, last)
            and b"".join(uses.prevs) == "".join([self.leaf_hash, *leaves[:-1]]).encode()
            and self.codec.are_authentic(uses)
        ):
            return 0
        self.seq, self.leaf_hash = last, leaves[-1]
        return len(lines)

    def _step(self, entry: bytes, seq: int) -> None:
        if entry[SEQ] != b"%016x" % seq:
            raise tampered(Reason.SEQUENCE, seq)
        if self.leaf_hash and entry[PREV] != self.leaf_hash.encode():
            raise tampered(Reason.CHAIN, seq)
        if self._is_closed:
            raise tampered(Reason.AFTER_CLOSE, seq)
        leaf = sha256(b"\0" + entry).hexdigest()
        mark = self.mark
        if mark is not None and mark.seq == seq and mark.leaf_hash != leaf:
            raise tampered(Reason.MARK, seq)
        if seq == 0:
            self._check_begun(entry)
        self._is_closed = is_log_close(entry)
        self.seq, self.leaf_hash = seq, leaf

    def _members(self, entry: bytes, seq: int) -> Entry:
        found = decode_entry(entry)
        if found is None:
            raise tampered(Reason.EVENT, seq)
        return found

    def _check_begun(self, entry: bytes) -> None:
        found = self._members(entry, 0)
        detail = found.detail
        if found.kind != BEGUN or not isinstance(detail, LogBegunDetail):
            raise tampered(Reason.LOG_ID, 0)
        if self.log_id and detail.log_id != self.log_id:
            raise tampered(Reason.LOG_ID, 0)

    def start_after(self, entry: bytes, seq: int) -> None:
        """
        Start after an entry without checking the entries before it.

        Args:
            entry: Without its newline.

            seq: Sequence number to report if it is bad.

        Raises:
            AuditTamperedError: It is no entry of this log.
        """
        self.codec.authenticate(entry, seq)
        found = claimed_seq(entry)
        if found is None:
            raise tampered(Reason.FRAMING, seq)
        self.seq, self.leaf_hash = found, leaf_hash(entry)


def _seqs(first: int, last: int) -> bytes:
    """Return sequence numbers as entries hold them, joined."""
    numbers = range(first, last + 1)
    return pack(f">{len(numbers)}Q", *numbers).hex().encode()
