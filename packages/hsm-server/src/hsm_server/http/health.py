# SPDX-License-Identifier: MIT
"""Health check of the HSM, at most once a second."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from hsm_core.errors import HSMError
from hsm_core.model import Record
from hsm_server.__about__ import __version__
from hsm_server.observability.metrics import Metrics
from hsm_server.vault.access import VaultAccess

_PERIOD_SECONDS: Final = 1.0
STATUS_SECONDS: Final = 2.0
"""Timeout for the vault's answer."""


class Health(Record, frozen=True, kw_only=True):
    """
    Response of ``/healthz``, ``/livez`` and ``/readyz``.

    Attributes:
        status: ``ok``; ``degraded`` if something is wrong; ``unavailable`` if requests
            cannot be served, as ``/readyz`` reports.
    """

    status: str
    version: str
    uptime_seconds: int


class HealthCheck:
    """
    Health check: queries the status of the vault.

    Args:
        vault: The vault to query.

        metrics: Receive the state of audit log and store, and provide that of TLS.
    """

    def __init__(self, vault: VaultAccess, metrics: Metrics) -> None:
        self._vault = vault
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._state = ""
        self._serving = self._has_alarm = False

    async def refresh(self) -> None:
        """Ask, unless that was done within the last second."""
        async with self._lock:
            if time.monotonic() - self._asked_at < _PERIOD_SECONDS:
                return
            try:
                async with asyncio.timeout(STATUS_SECONDS):
                    status = await self._vault.status()
            except (HSMError, TimeoutError):
                self._state, self._serving = "error", False
                self._metrics.show(None)
            else:
                self._state = status.state
                serves = status.state not in {"error", "locked"}
                self._serving = status.audit.available and serves
                self._metrics.show(status)
            self._has_alarm = self._metrics.has_alarm()
            self._asked_at = time.monotonic()

    async def check(self) -> tuple[Health, bool]:
        """Return the state, and whether requests can be served."""
        await self.refresh()
        is_whole = self._state == "operational" and not self._has_alarm
        return self._health("ok" if is_whole else "degraded"), self._serving

    async def check_ready(self) -> tuple[Health, bool]:
        """Return whether requests can be served, and nothing else."""
        await self.refresh()
        return self._health("ok" if self._serving else "unavailable"), self._serving

    def alive(self) -> Health:
        """Return that this process answers, whatever the vault does."""
        return self._health("ok")

    def _health(self, status: str) -> Health:
        return Health(
            status=status,
            version=__version__,
            uptime_seconds=int(self._metrics.uptime_seconds),
        )
