# SPDX-License-Identifier: MIT
"""Outage of an audit log: its cause, the pauses between attempts, and its record."""

from __future__ import annotations

import time
from typing import Final

from hsm_core._internal.audit.medium import Cause, MediumError, Tail
from hsm_core.errors import (
    AuditUnavailableError,
    HSMLockedError,
    StoreUnavailableError,
    UnavailableError,
)
from hsm_core.model import Phase, ResumeDetail
from hsm_core.protocols import AuditDraft

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_CALM_SECONDS: Final = 10.0
"""An outage within this time of the last one continues with its pauses."""


class Outage:
    """
    One outage.

    Args:
        cause: What the log suffers from.

        failed_at: Microseconds since 1970.

        error: What was raised.

    Attributes:
        cause: That of the newest failure.
        error: The newest failure.
    """

    def __init__(
        self, cause: Cause, failed_at: int, error: BaseException | None = None
    ) -> None:
        self._first_cause = self.cause = cause
        self._failed_at = failed_at
        self.error = error
        self._attempts = 0
        self._pause = _FIRST_PAUSE
        self._ended_at = 0.0
        self._rewritten_from: int | None = None

    @classmethod
    def of(cls, error: BaseException, now: int, before: Outage | None) -> Outage:
        """Return the outage that *error* begins, *before* being the last one."""
        outage = cls(_cause_of(error), now, error)
        if before is not None:
            outage._pause = before.pause_after()
        return outage

    @property
    def sentence(self) -> str:
        """Message for callers."""
        error = self.error
        if isinstance(error, HSMLockedError):
            # The log of a cluster's node is read again at its next start only.
            return f"{error} Restart this node, and then recover the store."
        is_ours = isinstance(error, AuditUnavailableError | StoreUnavailableError)
        if isinstance(error, UnavailableError) and not is_ours:
            return str(error)  # A node that was fenced.
        return self.cause.sentence

    def next_pause(self) -> float:
        """Return for how many seconds to wait before the next attempt."""
        pause = self._pause
        self._pause = min(2 * pause, _LONGEST_PAUSE)
        self._attempts += 1
        return pause

    def pause_after(self) -> float:
        """Return the first pause of an outage that begins now."""
        is_calm = time.monotonic() - self._ended_at >= _CALM_SECONDS
        return _FIRST_PAUSE if is_calm else self._pause

    def failed_again(self, error: BaseException) -> None:
        """Note that an attempt failed, and why."""
        self.error = error
        self.cause = _cause_of(error)

    def rewrote(self, tail: Tail) -> None:
        """Note what was written again; the first time counts."""
        if tail.lines and self._rewritten_from is None:
            self._rewritten_from = tail.first_seq

    def ended(self) -> None:
        """Note when it was over."""
        self._ended_at = time.monotonic()

    def draft(self, seq: int) -> AuditDraft:
        """Return the record of its end, which becomes number *seq*."""
        known = self._rewritten_from
        detail = ResumeDetail(
            cause=self._first_cause.value,
            failed_at=max(self._failed_at, 0),
            rewritten_from=seq if known is None else known,
            attempts=self._attempts,
        )
        return AuditDraft(phase=Phase.SINGLE, kind="system.resume", detail=detail)


def _cause_of(error: BaseException) -> Cause:
    return error.cause if isinstance(error, MediumError) else Cause.WRITE
