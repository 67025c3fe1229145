# SPDX-License-Identifier: MIT
"""Instruments: counters, histograms and gauges that processes increment."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Child: TypeAlias = Any
"""A counter, gauge or histogram with its label values."""

TLS_SLOT: Final = "tls"
"""Slot of the TLS manager."""

_COUNTERS: Final = {
    "ferrohsm_requests_total": (
        "Requests answered, by operation and result code.",
        ("operation", "code"),
    ),
    "ferrohsm_unexpected_exceptions_total": (
        "Requests that failed with an unexpected exception.",
        (),
    ),
    "ferrohsm_auth_jwt_failure_total": (
        "Requests rejected because of a missing or invalid bearer token.",
        (),
    ),
    "ferrohsm_auth_jwt_reload_failures_total": (
        "Failed reloads of the token keys; previous keys stay unless withdrawn.",
        (),
    ),
    "ferrohsm_rate_limit_allowed_total": (
        "Requests allowed by a limit, by limit.",
        ("limit",),
    ),
    "ferrohsm_rate_limit_blocked_total": (
        "Requests rejected by a limit, by limit.",
        ("limit",),
    ),
    "ferrohsm_vault_violations_total": (
        "Front-end connections closed by the vault for a protocol violation, by "
        "reason.",
        ("reason",),
    ),
    "ferrohsm_process_restarts_total": (
        "Restarts of server processes, by kind.",
        ("process",),
    ),
    "ferrohsm_tls_handshakes_total": (
        "TLS handshakes, by outcome and key exchange group.",
        ("outcome", "group"),
    ),
    "ferrohsm_tls_alarms_total": (
        "TLS alarms raised, by part. Of a faulty update, only withdrawals of trust "
        "take effect.",
        ("part",),
    ),
    "ferrohsm_ocsp_clients_refused_total": (
        "Connections closed because OCSP reported the client certificate as revoked "
        "or had no answer.",
        ("reason",),
    ),
    "ferrohsm_ocsp_questions_total": (
        "OCSP queries, by certificate and outcome.",
        ("about", "result"),
    ),
    "ferrohsm_acme_orders_total": (
        "Certificate orders at the ACME CA, by outcome.",
        ("outcome",),
    ),
}
_GAUGES: Final = {
    "ferrohsm_auth_jwt_alarm": (
        "1 while the token keys cannot be read and no new key is accepted, else 0.",
        ("source",),
    ),
    "ferrohsm_clock_behind_seconds": (
        "Seconds that the wall clock is behind the time used for token expiry.",
        (),
    ),
    "ferrohsm_tls_alarm": (
        "1 while an alarm is active for a part of TLS, else 0.",
        ("part",),
    ),
    "ferrohsm_ocsp_staple_expires_seconds": (
        "Expiry of the OCSP staple of a certificate, in Unix time; 0 without a staple.",
        ("kind",),
    ),
    "ferrohsm_acme_next_order_seconds": (
        "Time of the next certificate order, in Unix time.",
        ("authority",),
    ),
}
_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_FIRST: Final = (
    *(
        ("ferrohsm_process_restarts_total", slot)
        for slot in ("vault", "front", TLS_SLOT)
    ),
    ("ferrohsm_rate_limit_allowed_total", "actor"),
    *(
        ("ferrohsm_rate_limit_blocked_total", limit)
        for limit in ("actor", "address", "failures")
    ),
)
"""Present from the start: the first increase from nothing is none in Prometheus."""


class Instruments(dict[tuple[str, ...], Child]):
    """
    Instruments by name and label values; lookup is as fast as counting.

    Attributes:
        registry: Registry of this object alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        seconds = Histogram(
            "ferrohsm_request_seconds",
            "Time from the head of a request to its response, in seconds.",
            ("operation",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        buckets = Gauge(
            "ferrohsm_rate_limit_buckets",
            "Callers and addresses with a bucket of their own, by limit.",
            ("limit",),
            registry=self.registry,
            multiprocess_mode="sum",
        )
        self._families: dict[str, Any] = {
            "ferrohsm_request_seconds": seconds,
            "ferrohsm_rate_limit_buckets": buckets,
        }
        for name, (text, labels) in _COUNTERS.items():
            self._families[name] = Counter(name, text, labels, registry=self.registry)
        for name, (text, labels) in _GAUGES.items():
            self._families[name] = Gauge(
                name,
                text,
                labels,
                registry=self.registry,
                multiprocess_mode="mostrecent",
            )
        for key in _FIRST:
            self[key]

    def __missing__(self, key: tuple[str, ...]) -> Child:
        """Return the child with labels that were not asked for before."""
        name, *labels = key
        family = self._families[name]
        child = self[key] = family.labels(*labels) if labels else family
        return child
