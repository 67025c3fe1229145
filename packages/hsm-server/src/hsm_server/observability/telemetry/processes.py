# SPDX-License-Identifier: MIT
"""Metrics of the server's processes."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from hsm_server.observability.telemetry.instruments import Instruments
from hsm_server.observability.telemetry.sharing import KEEPERS_SLOT

_PROCESSES: Final = ("vault", "front", KEEPERS_SLOT)


class ProcessInstruments(Instruments):
    """Instruments of the server's processes."""

    def __init__(self) -> None:
        super().__init__()
        self._violations = Counter(
            "ferrohsm_vault_violations_total",
            "Front-end connections closed by the vault for a protocol "
            "violation, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._restarts = Counter(
            "ferrohsm_process_restarts_total",
            "Restarts of server processes, by kind.",
            ("process",),
            registry=self.registry,
        )
        for process in _PROCESSES:
            # What rises from nothing does not rise for who looks at increases.
            self._restarts.labels(process)

    def count_violation(self, reason: str) -> None:
        """Count one connection that broke the rules between our processes."""
        self._violations.labels(reason).inc()

    def count_restart(self, process: str) -> None:
        """Count one process that had to be started again."""
        self._restarts.labels(process).inc()
