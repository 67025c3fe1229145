# SPDX-License-Identifier: MIT
"""Verification of a range of an open audit log."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import leaf_hash
from hsm_core._internal.audit.verify import verify_lines
from hsm_core.errors import AuditTamperedError, InvalidInputError
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditLog

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
