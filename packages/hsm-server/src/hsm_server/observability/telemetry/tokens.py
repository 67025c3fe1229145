# SPDX-License-Identifier: MIT
"""Counts what is wrong with bearer tokens, and with the keys of tokens."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from hsm_server.observability.telemetry.instruments import Instruments


class TokenInstruments(Instruments):
    """Counts what is wrong with bearer tokens, and with the keys of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self._jwt_failures = Counter(
            "ferrohsm_auth_jwt_failure_total",
            "Requests refused for their bearer token, or for having none.",
            registry=self.registry,
        )
        self._jwt_reload_failures = Counter(
            "ferrohsm_auth_jwt_reload_failures_total",
            "How often the keys of tokens could not be read; the former ones stay.",
            registry=self.registry,
        )
        self._jwt_alarm = Gauge(
            "ferrohsm_auth_jwt_alarm",
            "1 while the keys of tokens can't be read and the former ones stay in "
            "force, else 0.",
            ("source",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

        self._clock_behind = Gauge(
            "ferrohsm_clock_behind_seconds",
            "How far the wall clock was set back behind the time that tokens expire "
            "by, in seconds.",
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
