# SPDX-License-Identifier: MIT
"""Reading an audit log that may be pruned concurrently."""

from __future__ import annotations

from hsm_core.errors import InvalidInputError
from hsm_core.protocols import AuditLog


def pruned_before(first_seq: int) -> InvalidInputError:
    """Return the error for reading pruned records."""
    return InvalidInputError(
        f"start_seq must be at least {first_seq}: earlier records were pruned.",
        field="start_seq",
        limit=first_seq,
    )


def lines_from(audit: AuditLog, start_seq: int, limit: int) -> tuple[int, list[bytes]]:
    """
    Return lines from *start_seq*, or from the oldest remaining record.

    Returns:
        The sequence number of the first line, and up to *limit* lines.

    Raises:
        AuditUnavailableError: The trail can't be read.
    """
    while True:
        first = max(start_seq, audit.first_seq)
        try:
            return first, audit.lines(first, limit)
        except InvalidInputError:
            # Unless it was pruned in this very moment, nothing helps.
            if audit.first_seq <= first:
                raise
