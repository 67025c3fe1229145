# SPDX-License-Identifier: MIT
"""Reading a trail that may be pruned meanwhile."""

from __future__ import annotations

from hsm_core.errors import InvalidInputError
from hsm_core.protocols import AuditLog


def pruned_before(first_seq: int) -> InvalidInputError:
    """Return the error for who reads records that were pruned."""
    return InvalidInputError(
        f"start_seq must be at least {first_seq}: earlier records were pruned.",
        field="start_seq",
        limit=first_seq,
    )


def lines_from(audit: AuditLog, start_seq: int, limit: int) -> tuple[int, list[bytes]]:
    """
    Return lines from *start_seq* on, or from the oldest that was not pruned.

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
