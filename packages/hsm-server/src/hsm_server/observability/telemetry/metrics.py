# SPDX-License-Identifier: MIT
"""All metrics of ``/metrics``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from hsm_core.operations import HSMStatus
from hsm_server.observability.telemetry.authorities import AuthorityInstruments
from hsm_server.observability.telemetry.figures import Figures, figures_of
from hsm_server.observability.telemetry.limits import LimitInstruments
from hsm_server.observability.telemetry.processes import ProcessInstruments
from hsm_server.observability.telemetry.requests import RequestInstruments
from hsm_server.observability.telemetry.sharing import (
    ALARM_GAUGES,
    ALARM_SLOTS,
    shared_folder,
)
from hsm_server.observability.telemetry.state import StateCollector
from hsm_server.observability.telemetry.tls import TLSInstruments
from hsm_server.observability.telemetry.tokens import TokenInstruments

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the Prometheus text format."""

_ALARMS: Final = frozenset({"ferrohsm_tls_alarm", "ferrohsm_auth_jwt_alarm"})


class Metrics(
    AuthorityInstruments,
    TLSInstruments,
    ProcessInstruments,
    LimitInstruments,
    TokenInstruments,
    RequestInstruments,
):
    """
    All metrics of ``/metrics``. No label contains a key ID or a principal.

    Args:
        started: Start of the service on the monotonic clock; now by default.
    """

    def __init__(self, started: float | None = None) -> None:
        super().__init__()
        began = time.monotonic() if started is None else started
        self._state = StateCollector(began)
        self.registry.register(self._state)
        self._folder = shared_folder()

    @property
    def uptime_seconds(self) -> float:
        """Time since the service began, in seconds."""
        return self._state.uptime_seconds

    def has_alarm(self) -> bool:
        """Return whether something is wrong with TLS, or with the keys of tokens."""
        return any(
            sample.value > 0
            for family in self._alarms()
            if family.name in _ALARMS
            for sample in family.samples
        )

    def _alarms(self) -> Iterable[Metric]:
        if self._folder is None:
            return [*self._tls_alarm.collect(), *self._jwt_alarm.collect()]
        paths = [self._folder / f"{ALARM_GAUGES}_{slot}.db" for slot in ALARM_SLOTS]
        files = [str(path) for path in paths if path.exists()]
        families: Iterable[Metric] = MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        return families

    def show_certificates(self, ends: Mapping[str, float]) -> None:
        """Show until when each certificate in use is valid, in Unix time, by kind."""
        self._state.certificates = dict(ends)

    def show(self, status: HSMStatus | None, /) -> None:
        """Show what the HSM says of itself; None if it doesn't answer."""
        self._state.status = status

    def exposition(self) -> bytes:
        """Return all values, of all processes, in the Prometheus text format."""
        return generate_latest(self._everything())

    def snapshot(self) -> Figures:
        """Return the key figures over all processes."""
        families = self._everything().collect()
        return figures_of(families, self._state.status, self.uptime_seconds)

    def _everything(self) -> CollectorRegistry:
        if self._folder is None:
            return self.registry
        everything = CollectorRegistry()
        MultiProcessCollector(everything, str(self._folder))  # type: ignore[no-untyped-call]
        everything.register(self._state)
        return everything
