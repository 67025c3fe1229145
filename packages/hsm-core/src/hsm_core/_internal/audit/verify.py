# SPDX-License-Identifier: MIT
"""Verification of an audit log: a range of records, or a whole log offline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from hsm_core._internal.audit.baseline import PrunedPrefix
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.head_mark import StoredHead
from hsm_core._internal.audit.record import GENESIS, Reason, leaf_hash, tampered
from hsm_core.errors import AuditTamperedError, InvalidInputError
from hsm_core.model import AuditEvent
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditHead, AuditLog

_PROGRESS_EVERY: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineVerification:
    """
    Result of verifying an intact audit log; damage raises instead.

    Attributes:
        records: Number of verified records.
        head_seq: The newest one, -1 for an empty trail.
        head_hash: Its leaf hash, hex; compare it with one written down before.
        log_id: 32 hex digits; empty for an empty trail read without key.
        macs_checked: Whether the key was given. Without it, an attacker who edits a
            record can recompute all later ones, or truncate the log.
        mark_checked: Whether the head mark was authenticated and agrees.
        clean: The log was closed cleanly at its end.
        in_use: A process has the log open, so that it is not closed yet.
        torn_bytes: Length of an unfinished tail: left by a crash, or being written.
        first_seq: The oldest record; all before it were pruned, and a record that was
            verified says so.
        pruned_roots: RFC 6962 subtree roots (compact range) of the records before it,
            from the largest subtree to the smallest, hex.
        baseline_checked: Whether the baseline matches the pruning record.
    """

    records: int
    head_seq: int
    head_hash: str
    log_id: str
    macs_checked: bool
    mark_checked: bool
    clean: bool
    torn_bytes: int
    in_use: bool = False
    first_seq: int = 0
    pruned_roots: tuple[str, ...] = ()
    baseline_checked: bool = False


class VerificationRun:
    """
    Running verification: records are passed to its follower in order.

    Args:
        hmac_key: Key of the trail; None leaves the MACs unchecked.

        head: Content of the head file; None without the file or the key.

        prefix: Checks the start of the log.

        progress: Called now and then with the number of records verified.

        look: Called with each good record.
    """

    def __init__(
        self,
        hmac_key: bytes | None,
        head: StoredHead | None,
        prefix: PrunedPrefix,
        progress: Callable[[int], None] | None,
        look: Callable[[AuditEvent], None] | None,
    ) -> None:
        self.head = head
        self.prefix = prefix
        self._has_key = hmac_key is not None
        self._look = look
        self._progress = progress
        self._before, leaf_hash = prefix.start
        self.follower = Follower(
            log_id=head.log_id if head else None,
            hmac_key=hmac_key,
            seq=self._before,
            leaf_hash=leaf_hash,
            mark=head.mark if head else None,
        )

    def visit(self, event: AuditEvent, leaf_hash: str) -> None:
        """Process the next good record."""
        self.prefix.visit(event, leaf_hash)
        if self._look is not None:
            self._look(event)
        records = event.seq - self._before
        if self._progress is not None and records % _PROGRESS_EVERY == 0:
            self._progress(records)

    def result(
        self, *, torn_bytes: int = 0, in_use: bool = False
    ) -> OfflineVerification:
        """
        Return the result, after all records were followed.

        Raises:
            AuditTamperedError: Records are missing, and no pruning record accounts for
                them.
        """
        self.prefix.finish()
        follower, detail = self.follower, self.prefix.detail
        records = follower.seq - self._before
        if self._progress is not None:
            self._progress(records)
        return OfflineVerification(
            records=records,
            head_seq=follower.seq,
            head_hash=follower.leaf_hash,
            log_id=follower.log_id,
            macs_checked=self._has_key,
            mark_checked=follower.mark is not None,
            clean=follower.mark is not None and follower.mark.clean,
            torn_bytes=torn_bytes,
            in_use=in_use,
            first_seq=self._before + 1,
            pruned_roots=detail.roots if detail else (),
            baseline_checked=detail is not None,
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """Number of verified lines, the state after them, and their audit log."""

    records: int
    head: AuditHead
    log_id: str


def verify_lines(
    lines: Iterable[bytes],
    *,
    log_id: str | None,
    hmac_key: bytes | None,
    start: tuple[int, str] | None,
) -> Verification:
    """
    Verify records that follow each other: framing, form, sequence, chain and MAC.

    Args:
        lines: Stored lines, without newline.

        log_id: Expected audit log; None accepts the id in the first record.

        hmac_key: None leaves the MACs unchecked.

        start: Sequence number and leaf hash (hex) of the record before the first line;
            None if the first line is the first of the trail.

    Raises:
        AuditTamperedError: A record is bad; ``facts`` name the first as ``seq`` and
            the ``reason``.
    """
    seq, leaf = start or (-1, GENESIS)
    follower = Follower(log_id=log_id, hmac_key=hmac_key, seq=seq, leaf_hash=leaf)
    for line in lines:
        follower.follow(line)
    head = AuditHead(follower.seq, follower.leaf_hash)
    return Verification(follower.seq - seq, head, follower.log_id)


_BLOCK: Final = 1000


def verify_range(
    audit: AuditLog, hmac_key: bytes, start_seq: int, limit: int
) -> AuditVerification:
    """
    Verify up to *limit* records from *start_seq*, up to the current head.

    A range that does not start at 0 starts after the leaf hash of the record before it,
    which a walk from 0 has verified. A range that would start before the oldest
    remaining record starts there, and the baseline is checked. The pruning record was
    verified when the log was opened, and is verified again offline.

    Raises:
        AuditTamperedError: A record is bad or missing; ``facts`` name the first.
        AuditUnavailableError: The trail can't be read.
        InvalidInputError: *start_seq* lies beyond the end.
    """
    head = audit.head()
    start_seq = max(start_seq, audit.first_seq)
    if start_seq > head.seq + 1:
        raise InvalidInputError(
            f"start_seq must be at most {head.seq + 1}, got {start_seq}.",
            field="start_seq",
            limit=head.seq + 1,
        )
    end = min(start_seq + limit, head.seq + 1)
    before = _before(audit, start_seq)
    seq = start_seq
    while seq < end:
        lines = _lines(audit, seq, min(_BLOCK, end - seq))
        found = verify_lines(
            lines, log_id=audit.log_id, hmac_key=hmac_key, start=before
        )
        before = (found.head.seq, found.head.leaf_hash)
        seq += found.records
    if seq == head.seq + 1 and before is not None and before[1] != head.leaf_hash:
        raise tampered(Reason.CHAIN, head.seq)
    return AuditVerification(
        start_seq=start_seq,
        verified=seq - start_seq,
        next_seq=seq if seq <= head.seq else None,
        head_seq=head.seq,
        head_hash=head.leaf_hash,
    )


def _lines(audit: AuditLog, seq: int, limit: int) -> list[bytes]:
    try:
        lines = audit.lines(seq, limit)
    except AuditTamperedError as error:
        # A record is missing. One before it may be bad, and is to be named first.
        missing = error.facts["seq"]
        if not isinstance(missing, int) or missing <= seq:
            raise
        lines = audit.lines(seq, missing - seq)
    if not lines:
        raise tampered(Reason.SHORTER, seq)
    return lines


def _before(audit: AuditLog, start_seq: int) -> tuple[int, str] | None:
    if start_seq == 0:
        return None
    if start_seq == audit.first_seq:
        for _ in audit.baseline():
            pass
        # The word of the first record, which its MAC binds, for the one before.
        return start_seq - 1, ""
    lines = audit.lines(start_seq - 1, 1)
    if not lines:
        raise tampered(Reason.SHORTER, start_seq - 1)
    return start_seq - 1, leaf_hash(lines[0])
