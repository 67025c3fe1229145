# SPDX-License-Identifier: MIT
"""Chain of audit records: the writing end, the checking end, and the open intents."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence

from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.record import (
    EPOCH,
    FORMAT,
    FRAME,
    GENESIS,
    MAX_INTEGER,
    Reason,
    check_draft,
    decode_event,
    encode_event,
    is_log_id,
    leaf_hash,
    record_mac_function,
    tampered,
)
from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.encoding import newer_format
from hsm_core.errors import AuditTamperedError, InvalidInputError, MalformedError
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

        hmac_key: Key of the trail.

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
        self._mac_of: Callable[[bytes], bytes] = record_mac_function(hmac_key, log_id)

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
            check_draft(draft)
            seq += 1
            payload = encode_event(self._event(draft, seq, leaf, time))
            line = encoding.join(FRAME, payload, self._mac_of(payload))
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

    def _event(self, draft: AuditDraft, seq: int, prev: str, time: int) -> AuditEvent:
        return AuditEvent(
            format=FORMAT,
            log_id=self.log_id,
            seq=seq,
            prev=prev,
            epoch=EPOCH,
            time=time,
            phase=draft.phase,
            kind=draft.kind,
            code=draft.code,
            node=self._node,
            request_id=draft.request_id,
            operation_id=draft.operation_id,
            key_id=draft.key_id,
            version=draft.version,
            generation=draft.generation,
            document_before=draft.document_before,
            document_after=draft.document_after,
            set_digest=draft.set_digest,
            caller=draft.caller,
            key=draft.key,
            parameters=draft.parameters,
            rule=draft.rule,
            policy=draft.policy,
            demands=draft.demands,
            approval_id=draft.approval_id,
            approval_signatures=draft.approval_signatures,
            digest=draft.digest,
            detail=draft.detail,
        )


class Follower:
    """
    Checks the records of one trail in order.

    Args:
        log_id: 32 hex digits; None accepts the id in the first record.

        hmac_key: None leaves the MACs unchecked.

        seq: The record before the first one to follow.

        leaf_hash: Its leaf hash; empty accepts the one in the first record.

        mark: Head mark; the record that it names must match it.

    Attributes:
        seq: The newest record that was followed; -1 for none.
        leaf_hash: Its leaf hash, hex.
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
        self._hmac_key = hmac_key
        self._log_id = log_id
        self._mac_of: Callable[[bytes], bytes] | None = None
        if log_id is not None and hmac_key is not None:
            self._mac_of = record_mac_function(hmac_key, log_id)

    @property
    def log_id(self) -> str:
        """Id of the audit log; empty until the first record is followed."""
        return self._log_id or ""

    def follow(self, line: bytes) -> AuditEvent:
        """
        Check the next line, given without its newline, and move on to it.

        Raises:
            AuditTamperedError: It is not the next record; nothing has moved.
        """
        seq = self.seq + 1
        event = self._authentic(line, seq)
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
            AuditTamperedError: It is no record of this trail.
        """
        event = self._authentic(line, seq)
        self.seq, self.leaf_hash = event.seq, leaf_hash(line)

    def is_record(self, line: bytes) -> bool:
        """Return whether this is a record of this audit log, at any position."""
        try:
            self._authentic(line, self.seq + 1)
        except AuditTamperedError:
            return False
        return True

    def _authentic(self, line: bytes, seq: int) -> AuditEvent:
        try:
            payload, mac = encoding.split(FRAME, line)
        except MalformedError:
            raise tampered(Reason.FRAMING, seq) from None
        if self._log_id is None:
            self._adopt_log_id(payload, seq)
        mac_of = self._mac_of
        if mac_of is not None and not hmac.compare_digest(mac, mac_of(payload)):
            raise tampered(Reason.MAC, seq)
        event = decode_event(payload)
        if event is None or event.format != FORMAT:
            raise _unreadable(payload, seq)
        if event.log_id != self._log_id:
            raise tampered(Reason.LOG_ID, seq)
        if event.epoch != EPOCH:
            raise tampered(Reason.EPOCH, seq)
        return event

    def _adopt_log_id(self, payload: bytes, seq: int) -> None:
        event = decode_event(payload)
        if event is None or not is_log_id(event.log_id):
            raise _unreadable(payload, seq)
        self._log_id = event.log_id
        if self._hmac_key is not None:
            self._mac_of = record_mac_function(self._hmac_key, event.log_id)


def _unreadable(payload: bytes, seq: int) -> AuditTamperedError:
    is_newer = newer_format(payload, FORMAT)
    return tampered(Reason.FORMAT if is_newer else Reason.EVENT, seq)


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
