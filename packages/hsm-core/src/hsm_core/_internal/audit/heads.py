# SPDX-License-Identifier: MIT
"""
Records that tie the logs of a cluster together.

Each names how far the others have grown. So no log, and no end of one, can be removed
unnoticed while the others are kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hsm_core.errors import HSMError
from hsm_core.model import HeadsDetail, LogHead, Phase
from hsm_core.protocols import AuditDraft, AuditLog

HEADS: Final = "system.heads"
"""Kind of these records."""

_PAUSE_SECONDS: Final = 3.0
"""Interval between two records; even with a slow database, five seconds at most."""
_MOST_LOGS: Final = 256
"""Maximum number of logs in one record: each takes 150 bytes of at most 65,535."""


class HeadsWatch:
    """
    Records the growth of the other logs in a node's own.

    Growth that is nothing but such records is not recorded: else an idle cluster would
    never come to rest.

    Args:
        audit: The node's own log.

        grown: Returns the heads of the logs that have grown, given the numbers of
            records that are known.
    """

    def __init__(
        self,
        audit: AuditLog,
        grown: Callable[[Mapping[str, int]], Sequence[LogHead]],
    ) -> None:
        self._audit = audit
        self._grown = grown
        self._named: dict[str, int] = {}
        self._due = 0.0
        self._lock = threading.Lock()

    def record_growth(self, *, now: bool = False) -> None:
        """
        Record what has grown since the last record, every few seconds.

        Args:
            now: Whether it is recorded at once, as before the log is closed.

        Raises:
            AuditTamperedError: A head mark is missing, or was altered.
            AuditUnavailableError: The others can't be read, or the own one not written.
        """
        with self._lock:
            if now or time.monotonic() >= self._due:
                self._record()

    def _record(self) -> None:
        self._due = time.monotonic() + _PAUSE_SECONDS
        own = self._audit.log_id
        found = self._grown(self._named | {own: 2**62})
        if not found:
            return
        parts = (found[at : at + _MOST_LOGS] for at in range(0, len(found), _MOST_LOGS))
        details = (HeadsDetail(logs=tuple(part)) for part in parts)
        drafts = [
            AuditDraft(phase=Phase.SINGLE, kind=HEADS, detail=detail)
            for detail in details
        ]
        try:
            self._audit.append(drafts, durable=True).wait()
        except HSMError:
            self._due = 0.0
            raise
        self._named |= {head.log_id: head.size for head in found}
