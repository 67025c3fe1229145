# SPDX-License-Identifier: MIT
"""
The server's counters, in a registry of their own.

Where the server is several processes, each counts into a file of its own in a folder
that all share, so that every front end shows the sum. A process that takes the place of
another goes on counting where that one was killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from hsm_core.operations import ApprovalStatus, HSMStatus, ScheduleStatus
from hsm_server.limits.metrics import LimitMetrics

__all__ = [
    "ALARM_GAUGES",
    "ALARM_SLOTS",
    "KEEPERS_SLOT",
    "METRICS_CONTENT_TYPE",
    "Metrics",
    "share_metrics",
]

KEEPERS_SLOT: Final = "tls"
"""Name of the keeper of TLS."""

ALARM_SLOTS: Final = ("vault", KEEPERS_SLOT)
"""Names of the processes that show gauges to all others."""

ALARM_GAUGES: Final = "gauge_mostrecent"
"""What the library calls the files of these gauges."""

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the Prometheus text format."""

_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

_TRAIL_STATES: Final = ("ok", "reserve", "failing")
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the library's own name


def share_metrics(folder: Path, slot: str) -> None:
    """
    Let all `Metrics` that this process makes from now on count in a shared folder.

    Args:
        folder: Of all processes of one server.

        slot: Name of this process, without underscores. No two running processes
            have the same; one that is started again has the same as before.
    """
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


class _StateCollector(Collector):
    """
    What the vault says of itself, as it was when it was last asked.

    Args:
        started: Instant of the monotonic clock at which the service began.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self.status: HSMStatus | None = None
        self.certificates: Mapping[str, float] = {}

    @property
    def uptime_seconds(self) -> float:
        """Time since the service began."""
        return time.monotonic() - self._started

    def collect(self) -> Iterator[Metric]:
        """Give each as a family; what nobody knows is 0, or left out."""
        status = self.status
        yield _gauge(
            "ferrohsm_vault_available",
            "1 if the process that holds the keys answers, else 0.",
            status is not None,
        )
        yield _gauge(
            "ferrohsm_audit_available",
            "1 if the audit trail can be written, else 0.",
            status is not None and status.audit.available,
        )
        yield from self._trail(status)
        yield from self._store(status)
        yield from self._policy(status)
        yield from self._schedules(status)
        yield from self._retention(status)
        yield from self._approvals(status)
        yield self._certificates()
        yield _gauge(
            "ferrohsm_uptime_seconds",
            "Time since the server started, in seconds.",
            self.uptime_seconds,
        )

    def _certificates(self) -> Metric:
        ends = GaugeMetricFamily(
            "ferrohsm_tls_certificate_not_after_seconds",
            "Until when the certificate in use is valid, with its chain, in Unix time.",
            labels=("kind",),
        )
        for kind, instant in self.certificates.items():
            ends.add_metric((kind,), instant)
        return ends

    def _trail(self, status: HSMStatus | None) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "ferrohsm_audit_state",
            "1 for the state that the audit trail is in, else 0.",
            labels=("state",),
        )
        for name in _TRAIL_STATES:
            is_now = status is not None and status.audit.state == name
            state.add_metric((name,), float(is_now))
        yield state
        yield _counter(
            "ferrohsm_audit_failures_total",
            "How often the audit trail could not be written any more.",
            status.audit.failures if status else None,
        )
        yield _counter(
            "ferrohsm_audit_resumes_total",
            "How often the audit trail has healed itself.",
            status.audit.resumes if status else None,
        )

    def _policy(self, status: HSMStatus | None) -> Iterator[Metric]:
        yield _gauge(
            "ferrohsm_policy_current",
            "1 if the policy file that lies there is in force, or there is none.",
            status is not None and status.policy.current,
        )
        yield _counter(
            "ferrohsm_policy_reload_failures_total",
            "How often a policy file was refused, and the last good one kept.",
            status.policy.failures if status else None,
        )

    def _retention(self, status: HSMStatus | None) -> Iterator[Metric]:
        counts = status.retention if status else None
        yield _gauge(
            "ferrohsm_retention_healthy",
            "1 if nothing keeps old key versions from being purged when they are due.",
            counts is not None and counts.healthy,
        )
        yield _gauge(
            "ferrohsm_retention_queue_length",
            "Materials of old key versions that are due or wait for their purge.",
            counts.queue if counts else 0,
        )
        yield _counter(
            "ferrohsm_retention_purge_scheduled_total",
            "Purges of old key versions that were scheduled.",
            counts.scheduled_total if counts else None,
        )
        yield _counter(
            "ferrohsm_retention_purge_completed_total",
            "Purges of old key versions that were done.",
            counts.completed_total if counts else None,
        )

    def _store(self, status: HSMStatus | None) -> Iterator[Metric]:
        yield _gauge(
            "ferrohsm_store_available",
            "1 if the key store can be read and written, else 0.",
            status is not None and status.store.available,
        )
        yield _gauge(
            "ferrohsm_locked",
            "1 if the HSM is locked, because its store is not what the trail knows.",
            status is not None and bool(status.store.locked),
        )
        yield _gauge(
            "ferrohsm_tampered_keys",
            "Keys that serve nothing because their stored form is not as it should be.",
            status.tampered_keys if status else 0,
        )
        yield _gauge(
            "ferrohsm_store_compared_keys",
            "Keys that the current or last background comparison has compared.",
            status.store.compared if status else 0,
        )

    def _approvals(self, status: HSMStatus | None) -> Iterator[Metric]:
        found = status.approvals if status else ApprovalStatus(available=False)
        yield _gauge(
            "ferrohsm_approvals_available",
            "1 if the store of approvals can be read and written, else 0.",
            found.available,
        )
        yield _gauge(
            "ferrohsm_approvals_pending",
            "Requests for approval that wait for consent.",
            found.pending,
        )
        yield _gauge(
            "ferrohsm_approvals_granted",
            "Approvals that are granted and not used.",
            found.granted,
        )
        yield _gauge(
            "ferrohsm_approvals_tampered",
            "Approvals that serve nothing because they are not as the trail says.",
            found.findings,
        )

    def _schedules(self, status: HSMStatus | None) -> Iterator[Metric]:
        found = status.schedules if status else ScheduleStatus()
        yield _gauge(
            "ferrohsm_rotations_due",
            "Keys that should have been rotated, and could not be yet.",
            found.rotations_due,
        )
        yield _gauge(
            "ferrohsm_destructions_waiting",
            "Keys that wait for their destruction.",
            found.destructions,
        )
        yield _gauge(
            "ferrohsm_destructions_held",
            "Those of them whose time is over only because the clock leapt.",
            found.held,
        )
        yield _gauge(
            "ferrohsm_clock_left_out_seconds",
            "Wall time that does not count because the clock leapt over it.",
            found.left_out_seconds,
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: int | None) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


class Metrics:
    """
    Everything that ``/metrics`` shows. No label holds a key id or a principal.

    Args:
        started: Instant of the monotonic clock at which the service began; now by
            default.

    Attributes:
        registry: Registry of this object alone.
        limits: What limits have let through and refused.
    """

    def __init__(self, started: float | None = None) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._make_of_requests()
        self.limits = LimitMetrics(self.registry)
        self._make_of_tokens()
        self._make_of_processes()
        self._make_of_tls()
        self._make_of_authorities()
        began = time.monotonic() if started is None else started
        self._state = _StateCollector(began)
        self.registry.register(self._state)
        self._folder = os.environ.get(_FOLDER)

    def _make_of_requests(self) -> None:
        self._requests = Counter(
            "ferrohsm_requests_total",
            "Requests answered, by operation and result code.",
            ("operation", "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ferrohsm_request_seconds",
            "Time from the head of a request to its answer, in seconds.",
            ("operation",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._unexpected = Counter(
            "ferrohsm_unexpected_exceptions_total",
            "Requests that failed for a reason nobody thought of.",
            registry=self.registry,
        )

    def _make_of_tokens(self) -> None:
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

    def _make_of_processes(self) -> None:
        self._violations = Counter(
            "ferrohsm_vault_violations_total",
            "Connections of front ends that the vault has ended, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._restarts = Counter(
            "ferrohsm_process_restarts_total",
            "Processes of the server that had to be started again, by kind.",
            ("process",),
            registry=self.registry,
        )

    def _make_of_tls(self) -> None:
        self._handshakes = Counter(
            "ferrohsm_tls_handshakes_total",
            "TLS handshakes, by how they ended and the group of the key exchange.",
            ("outcome", "group"),
            registry=self.registry,
        )
        self._tls_alarms = Counter(
            "ferrohsm_tls_alarms_total",
            "Alarms about TLS, by what they are about: what is new could not be used, "
            "and the former stays in use.",
            ("part",),
            registry=self.registry,
        )
        self._tls_alarm = Gauge(
            "ferrohsm_tls_alarm",
            "1 while something is wrong with a part of TLS, else 0.",
            ("part",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._refused_clients = Counter(
            "ferrohsm_ocsp_clients_refused_total",
            "Connections ended because of what OCSP says of a client certificate.",
            ("reason",),
            registry=self.registry,
        )

    def _make_of_authorities(self) -> None:
        self._ocsp = Counter(
            "ferrohsm_ocsp_questions_total",
            "Questions to OCSP responders, by whose certificate they were about and "
            "what was learnt, or why nothing.",
            ("about", "result"),
            registry=self.registry,
        )
        self._staples = Gauge(
            "ferrohsm_ocsp_staple_expires_seconds",
            "Until when the staple of a certificate is good, in Unix time; 0 without.",
            ("kind",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._acme_orders = Counter(
            "ferrohsm_acme_orders_total",
            "Certificates ordered from a CA, by what came of it.",
            ("outcome",),
            registry=self.registry,
        )
        self._acme_next = Gauge(
            "ferrohsm_acme_next_order_seconds",
            "When the next certificate is ordered from a CA, in Unix time.",
            ("authority",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

    @property
    def uptime_seconds(self) -> float:
        """Time since the service began, in seconds."""
        return self._state.uptime_seconds

    @property
    def unexpected(self) -> int:
        """How many unexpected exceptions there were."""
        value = self.registry.get_sample_value("ferrohsm_unexpected_exceptions_total")
        return int(value or 0)

    def count_request(self, operation: str, code: str, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(operation, code).inc()
        self._seconds.labels(operation).observe(seconds)

    def count_jwt_failure(self) -> None:
        """Count one request without valid token."""
        self._jwt_failures.inc()

    def show_jwt_alarm(self, *, is_on: bool) -> None:
        """Show whether the keys of tokens can't be read; count it if so."""
        self._jwt_alarm.labels("keys").set(is_on)
        if is_on:
            self._jwt_reload_failures.inc()

    def count_unexpected(self) -> None:
        """Count one exception that is a fault of ours."""
        self._unexpected.inc()

    def count_violation(self, reason: str) -> None:
        """Count one connection that broke the rules between our processes."""
        self._violations.labels(reason).inc()

    def count_handshake(self, outcome: str, group: str) -> None:
        """Count one TLS handshake, however it ended."""
        self._handshakes.labels(outcome, group).inc()

    def count_restart(self, process: str) -> None:
        """Count one process that had to be started again."""
        self._restarts.labels(process).inc()

    def count_tls_alarm(self, part: str) -> None:
        """Count one alarm about TLS."""
        self._tls_alarms.labels(part).inc()

    def show_tls_alarm(self, part: str, *, is_on: bool) -> None:
        """Show whether something is wrong with a part of TLS."""
        self._tls_alarm.labels(part).set(is_on)

    def count_ocsp(self, about: str, result: str) -> None:
        """Count one question to an OCSP responder."""
        self._ocsp.labels(about, result).inc()

    def count_refused_client(self, reason: str) -> None:
        """Count one connection that was ended because of a client's certificate."""
        self._refused_clients.labels(reason).inc()

    def show_staple(self, kind: str, expires_at: float) -> None:
        """Show until when a staple is good, in Unix time; 0 for none."""
        self._staples.labels(kind).set(expires_at)

    def count_order(self, outcome: str) -> None:
        """Count one certificate that was ordered, or should have been."""
        self._acme_orders.labels(outcome).inc()

    def show_next_order(self, authority: str, instant: float) -> None:
        """Show when a CA is next asked for a certificate, in Unix time."""
        self._acme_next.labels(authority).set(instant)

    def has_alarm(self) -> bool:
        """Return whether something is wrong with TLS, or with the keys of tokens."""
        if self._folder is None:
            families = [*self._tls_alarm.collect(), *self._jwt_alarm.collect()]
        else:
            folder = Path(self._folder)
            paths = [folder / f"{ALARM_GAUGES}_{slot}.db" for slot in ALARM_SLOTS]
            files = [str(path) for path in paths if path.exists()]
            families = MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        return any(
            sample.value > 0
            for family in families
            if family.name in {"ferrohsm_tls_alarm", "ferrohsm_auth_jwt_alarm"}
            for sample in family.samples
        )

    def show_certificates(self, ends: Mapping[str, float]) -> None:
        """Show until when each certificate in use is valid, in Unix time, by kind."""
        self._state.certificates = dict(ends)

    def show(self, status: HSMStatus | None, /) -> None:
        """Show what the HSM says of itself; None if it doesn't answer."""
        self._state.status = status

    def exposition(self) -> bytes:
        """Return all values, of all processes, in the Prometheus text format."""
        if self._folder is None:
            return generate_latest(self.registry)
        everything = CollectorRegistry()
        MultiProcessCollector(everything, self._folder)  # type: ignore[no-untyped-call]
        everything.register(self._state)
        return generate_latest(everything)
