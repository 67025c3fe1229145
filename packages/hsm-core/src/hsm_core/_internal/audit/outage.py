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
    """

    def __init__(self, cause: Cause, failed_at: int) -> None:
        self._cause = cause
        self._failed_at = failed_at
        self._attempts = 0
        self._pause = _FIRST_PAUSE
        self._ended_at = 0.0
        self._rewritten_from: int | None = None

    @classmethod
    def of(cls, error: BaseException, now: int, before: Outage | None) -> Outage:
        """Return the outage that *error* begins, *before* being the last one."""
        outage = cls(cause_of(error), now)
        if before is not None:
            outage._pause = before.pause_after()
        return outage

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

    def rewrote(self, tail: Tail) -> None:
        """Note what was written again; the first time counts."""
        if tail.records and self._rewritten_from is None:
            self._rewritten_from = tail.first_seq

    def ended(self) -> None:
        """Note when it was over."""
        self._ended_at = time.monotonic()

    def draft(self, seq: int) -> AuditDraft:
        """Return the record of its end, which becomes number *seq*."""
        known = self._rewritten_from
        detail = ResumeDetail(
            cause=self._cause.value,
            failed_at=max(self._failed_at, 0),
            rewritten_from=seq if known is None else known,
            attempts=self._attempts,
        )
        return AuditDraft(phase=Phase.SINGLE, kind="system.resume", detail=detail)


def sentence_of(error: BaseException) -> str:
    """Return the message for callers while the log suffers from *error*."""
    if isinstance(error, HSMLockedError):
        # The log of a cluster's node is read again at its next start only.
        return f"{error} Restart this node, and then recover the store."
    is_ours = isinstance(error, AuditUnavailableError | StoreUnavailableError)
    if isinstance(error, UnavailableError) and not is_ours:
        return str(error)  # A node that was fenced.
    return cause_of(error).sentence


def cause_of(error: BaseException | None) -> Cause:
    """Return what the log suffers from after *error*."""
    return error.cause if isinstance(error, MediumError) else Cause.WRITE
