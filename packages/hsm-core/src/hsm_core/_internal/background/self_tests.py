# SPDX-License-Identifier: MIT
"""Self-tests of all algorithms soon after the start, one in each step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core.algorithms import Algorithm

_FIRST_SECONDS: Final = 2.0
"""Delay of the first test after the start, in seconds."""
_PAUSE_SECONDS: Final = 0.05
_NEVER_SECONDS: Final = 1e9


class EarlySelfTests:
    """
    Known-answer tests of the algorithms that were not used yet.

    Each algorithm is tested before its first use in any case. These tests find a fault
    before anybody needs the algorithm, so that status and audit log show it.

    Args:
        crypto: The algorithms.

        record: Records disabled algorithms; may raise `AuditUnavailableError`.
    """

    def __init__(
        self,
        crypto: CryptoRegistry,
        record: Callable[[Sequence[Algorithm]], None],
    ) -> None:
        self._crypto = crypto
        self._record = record
        self._left = deque(Algorithm)
        self._recorded: set[Algorithm] = set()

    def begin(self, worker: BackgroundWorker) -> None:
        """Run soon, and once."""
        worker.every(_FIRST_SECONDS, self.step, first=_FIRST_SECONDS)

    def step(self) -> float:
        """
        Test one algorithm; return the seconds until the next step.

        Raises:
            EntropyUnavailableError: It can't be tested now; the next step tries again.
            AuditUnavailableError: A failure can't be recorded now; the same.
        """
        if self._left:
            self._crypto.test_early(self._left[0])
            self._left.popleft()
        self._record_disabled()
        return _PAUSE_SECONDS if self._left else _NEVER_SECONDS

    def _record_disabled(self) -> None:
        disabled = [
            algorithm
            for algorithm in self._crypto.stopped()
            if algorithm not in self._recorded
        ]
        if disabled:
            self._record(disabled)
            self._recorded.update(disabled)
