# SPDX-License-Identifier: MIT
"""Chain: turns drafts into audit records, each bound to the previous one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hsm_core._internal.audit.keys import EPOCH, record_mac_function
from hsm_core._internal.audit.mark import HeadMark
from hsm_core._internal.audit.record import (
    FORMAT,
    FRAME,
    MAX_INTEGER,
    check_draft,
    encode_event,
    leaf_hash,
)
from hsm_core._internal.lib import envelope
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
            line = envelope.join(FRAME, payload, self._mac_of(payload))
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
