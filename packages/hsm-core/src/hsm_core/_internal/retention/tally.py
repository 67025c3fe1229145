# SPDX-License-Identifier: MIT
"""Tally of one sweep, and totals of all sweeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hsm_core._internal.keyring.purge_windows import Candidate
from hsm_core._internal.time.clock import instant
from hsm_core.model import KeyId
from hsm_core.operations import PurgeItem

_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Ripe:
    """Material past its grace period."""

    key_id: KeyId
    material_id: str


@dataclass(slots=True)
class Totals:
    """Totals since the HSM was opened."""

    scheduled: int = 0
    cancelled: int = 0
    completed: int = 0


@dataclass(slots=True)
class Tally:
    """
    Findings of one sweep.

    Attributes:
        queue: Materials that are due or wait for their purge.
        failures: Keys that could not be handled.
        leapt: Materials that would be due if leaps of the clock counted as time.
        asked: How many approvals were asked for.
        cannot_ask: Whether no more can be asked for now.
        ripe: Those whose grace period is over, up to what is purged in a sweep.
        ripe_count: How many there are.
    """

    queue: int = 0
    failures: int = 0
    leapt: int = 0
    asked: int = 0
    cannot_ask: bool = False
    ripe: list[Ripe] = field(default_factory=list)
    ripe_count: int = 0
    items: list[PurgeItem] = field(default_factory=list)

    def show(self, candidate: Candidate, state: str, approval_id: str = "") -> None:
        """Put a material into the queue, and show it while there is room."""
        self.queue += 1
        if len(self.items) >= _SHOWN:
            return
        purge_at = max(v.purge_at for v in candidate.versions)
        self.items.append(
            PurgeItem(
                key_id=candidate.document.key_id,
                version=candidate.newest.version,
                versions=candidate.numbers,
                state=state,
                due_at=instant(candidate.due_at),
                window_days=candidate.window.days,
                rule=candidate.window.rule,
                purge_at=instant(purge_at) if purge_at else None,
                approval_id=approval_id,
            )
        )
