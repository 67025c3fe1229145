# SPDX-License-Identifier: MIT
"""Metrics of rejected tokens and token keys."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from hsm_server.observability.telemetry.instruments import Instruments


class TokenInstruments(Instruments):
    """Instruments of rejected tokens and token keys."""

    def __init__(self) -> None:
        super().__init__()
        self._jwt_failures = Counter(
            "ferrohsm_auth_jwt_failure_total",
            "Requests rejected because of a missing or invalid bearer token.",
            registry=self.registry,
        )
        self._jwt_reload_failures = Counter(
            "ferrohsm_auth_jwt_reload_failures_total",
            "Failed reloads of the token keys; previous keys stay unless withdrawn.",
            registry=self.registry,
        )
        self._jwt_alarm = Gauge(
            "ferrohsm_auth_jwt_alarm",
            "1 while the token keys cannot be read and no new key is accepted, else 0.",
            ("source",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

        self._clock_behind = Gauge(
            "ferrohsm_clock_behind_seconds",
            "Seconds that the wall clock is behind the time used for token expiry.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

    def count_jwt_failure(self) -> None:
        """Count one request without valid token."""
        self._jwt_failures.inc()

    def show_clock_behind(self, seconds: float) -> None:
        """Show how far the wall clock is behind the time of tokens."""
        self._clock_behind.set(seconds)

    def show_jwt_alarm(self, *, is_on: bool) -> None:
        """Show whether the keys of tokens can't be read; count it if so."""
        self._jwt_alarm.labels("keys").set(is_on)
        if is_on:
            self._jwt_reload_failures.inc()
