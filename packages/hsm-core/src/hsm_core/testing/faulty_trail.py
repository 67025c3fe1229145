# SPDX-License-Identifier: MIT
"""A trail that fails when a test has planned it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hsm_core.errors import AuditUnavailableError
from hsm_core.model import AuditEvent, PruneDetail
from hsm_core.protocols import (
    AuditDraft,
    AuditHead,
    AuditHealth,
    AuditLog,
    AuditTicket,
    KnownKey,
)
from hsm_core.testing.faults import Faults

__all__ = [
    "FaultyAuditLog",
]


class FaultyAuditLog:
    """An `AuditLog` whose appends and reads fail when a test has planned it."""

    def __init__(self, log: AuditLog, faults: Faults) -> None:
        self._log = log
        self._faults = faults

    @property
    def log_id(self) -> str:
        """See `AuditLog.log_id`."""
        return self._log.log_id

    @property
    def available(self) -> bool:
        """See `AuditLog.available`."""
        return not self._faults.trail_health.cause and self._log.available

    @property
    def set_digest_at_open(self) -> str:
        """See `AuditLog.set_digest_at_open`."""
        return self._log.set_digest_at_open

    @property
    def health(self) -> AuditHealth:
        """See `AuditLog.health`."""
        inner, planned = self._log.health, self._faults.trail_health
        worse = planned if planned.cause else inner
        return replace(
            worse,
            failures=inner.failures + planned.failures,
            resumes=inner.resumes + planned.resumes,
        )

    @property
    def first_seq(self) -> int:
        """See `AuditLog.first_seq`."""
        return self._log.first_seq

    def baseline(self) -> Iterator[KnownKey]:
        """See `AuditLog.baseline`."""
        self._faults.strike("audit.baseline")
        return self._log.baseline()

    def prunable(self, before: int, /) -> int:
        """See `AuditLog.prunable`."""
        self._faults.strike("audit.prunable")
        return self._log.prunable(before)

    def prune(self, seq: int, policy: str, /) -> PruneDetail | None:
        """See `AuditLog.prune`."""
        self._faults.strike("audit.prune")
        if self._faults.trail_health.cause:
            raise AuditUnavailableError
        return self._log.prune(seq, policy)

    def append(
        self,
        drafts: Sequence[AuditDraft],
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """See `AuditLog.append`."""
        self._faults.strike("audit.append")
        if self._faults.trail_health.cause:
            raise AuditUnavailableError
        for draft in drafts:
            self._faults.strike(f"audit.append.{draft.phase}")
        return self._log.append(drafts, durable=durable, reserved=reserved, lazy=lazy)

    def head(self) -> AuditHead:
        """See `AuditLog.head`."""
        return self._log.head()

    def durable_head(self) -> AuditHead:
        """See `AuditLog.durable_head`."""
        return self._log.durable_head()

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """See `AuditLog.lines`."""
        self._faults.strike("audit.lines")
        return self._log.lines(start_seq, limit)

    def open_intents(self) -> list[AuditEvent]:
        """See `AuditLog.open_intents`."""
        return self._log.open_intents()

    def close(self) -> None:
        """See `AuditLog.close`."""
        self._log.close()
