# SPDX-License-Identifier: MIT
"""Instruments: counters, histograms and gauges that processes increment."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Family = TypeVar("Family", Counter, Histogram)

TLS_SLOT: Final = "tls"
"""Slot of the TLS manager."""

_PROCESSES: Final = ("vault", "front", TLS_SLOT)


class Children(dict[tuple[str, ...], Family], Generic[Family]):
    """
    Children of a family by label values; lookup is as fast as counting.

    Args:
        family: The family.

        first: Label values present from the start, with value 0.
    """

    def __init__(self, family: Family, *first: tuple[str, ...]) -> None:
        super().__init__()
        self._family: Family = family
        for labels in first:
            self[labels]

    def __missing__(self, labels: tuple[str, ...]) -> Family:
        """Return the child with labels that were not asked for before."""
        child: Family = self._family.labels(*labels)
        self[labels] = child
        return child


class Instruments:
    """
    Group of instruments; `Metrics` has all of them.

    Attributes:
        registry: Registry of this object alone.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)


class AuthorityInstruments(Instruments):
    """Instruments of OCSP queries and ACME orders."""

    def __init__(self) -> None:
        super().__init__()
        self._ocsp = Counter(
            "ferrohsm_ocsp_questions_total",
            "OCSP queries, by certificate and outcome.",
            ("about", "result"),
            registry=self.registry,
        )
        self._staples = Gauge(
            "ferrohsm_ocsp_staple_expires_seconds",
            "Expiry of the OCSP staple of a certificate, in Unix time; 0 "
            "without a staple.",
            ("kind",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._acme_orders = Counter(
            "ferrohsm_acme_orders_total",
            "Certificate orders at the ACME CA, by outcome.",
            ("outcome",),
            registry=self.registry,
        )
        self._acme_next = Gauge(
            "ferrohsm_acme_next_order_seconds",
            "Time of the next certificate order, in Unix time.",
            ("authority",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

    def count_ocsp(self, about: str, result: str) -> None:
        """Count one question to an OCSP responder."""
        self._ocsp.labels(about, result).inc()

    def show_staple(self, kind: str, expires_at: float) -> None:
        """Show until when a staple is good, in Unix time; 0 for none."""
        self._staples.labels(kind).set(expires_at)

    def count_order(self, outcome: str) -> None:
        """Count one certificate that was ordered, or should have been."""
        self._acme_orders.labels(outcome).inc()

    def show_next_order(self, authority: str, instant: float) -> None:
        """Show when a CA is next asked for a certificate, in Unix time."""
        self._acme_next.labels(authority).set(instant)


class LimitInstruments(Instruments):
    """Instruments of rate limits."""

    def __init__(self) -> None:
        super().__init__()
        self._allowed = Counter(
            "ferrohsm_rate_limit_allowed_total",
            "Requests allowed by a limit, by limit.",
            ("limit",),
            registry=self.registry,
        )
        self._blocked = Counter(
            "ferrohsm_rate_limit_blocked_total",
            "Requests rejected by a limit, by limit.",
            ("limit",),
            registry=self.registry,
        )
        self._buckets = Gauge(
            "ferrohsm_rate_limit_buckets",
            "Callers and addresses with a bucket of their own, by limit.",
            ("limit",),
            registry=self.registry,
            multiprocess_mode="sum",
        )
        self._shown: dict[str, int] = {}
        # What rises from nothing does not rise for who looks at increases.
        self._allowed_of = Children(self._allowed, ("actor",))
        self._blocked_of = Children(
            self._blocked, ("actor",), ("address",), ("failures",)
        )

    def count_allowed(self, limit: str) -> None:
        """Count one request that was let through."""
        self._allowed_of[limit,].inc()

    def count_blocked(self, limit: str) -> None:
        """Count one request that was refused."""
        self._blocked_of[limit,].inc()

    def show_buckets(self, limit: str, number: int) -> None:
        """Show how many buckets there are."""
        if self._shown.get(limit) != number:
            self._shown[limit] = number
            self._buckets.labels(limit).set(number)


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


_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class RequestInstruments(Instruments):
    """Instruments of requests and their duration."""

    def __init__(self) -> None:
        super().__init__()
        self._requests = Counter(
            "ferrohsm_requests_total",
            "Requests answered, by operation and result code.",
            ("operation", "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ferrohsm_request_seconds",
            "Time from the head of a request to its response, in seconds.",
            ("operation",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._by_result = Children(self._requests)
        self._by_operation = Children(self._seconds)
        self._unexpected = Counter(
            "ferrohsm_unexpected_exceptions_total",
            "Requests that failed with an unexpected exception.",
            registry=self.registry,
        )

    @property
    def unexpected(self) -> int:
        """How many unexpected exceptions there were."""
        value = self.registry.get_sample_value("ferrohsm_unexpected_exceptions_total")
        return int(value or 0)

    def count_request(self, operation: str, code: str, seconds: float) -> None:
        """Count one answer."""
        self._by_result[operation, code].inc()
        self._by_operation[operation,].observe(seconds)

    def count_unexpected(self) -> None:
        """Count an unexpected exception."""
        self._unexpected.inc()


class TLSInstruments(Instruments):
    """Instruments of TLS handshakes and alarms."""

    def __init__(self) -> None:
        super().__init__()
        self._handshakes = Counter(
            "ferrohsm_tls_handshakes_total",
            "TLS handshakes, by outcome and key exchange group.",
            ("outcome", "group"),
            registry=self.registry,
        )
        self._tls_alarms = Counter(
            "ferrohsm_tls_alarms_total",
            "TLS alarms, by part: only withdrawals of an update took effect.",
            ("part",),
            registry=self.registry,
        )
        self._tls_alarm = Gauge(
            "ferrohsm_tls_alarm",
            "1 while an alarm is active for a part of TLS, else 0.",
            ("part",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._refused_clients = Counter(
            "ferrohsm_ocsp_clients_refused_total",
            "Connections closed because OCSP reported the client certificate as "
            "revoked or had no answer.",
            ("reason",),
            registry=self.registry,
        )

    def count_handshake(self, outcome: str, group: str) -> None:
        """Count one TLS handshake, however it ended."""
        self._handshakes.labels(outcome, group).inc()

    def count_tls_alarm(self, part: str) -> None:
        """Count one alarm about TLS."""
        self._tls_alarms.labels(part).inc()

    def show_tls_alarm(self, part: str, *, is_on: bool) -> None:
        """Show whether something is wrong with a part of TLS."""
        self._tls_alarm.labels(part).set(is_on)

    def count_refused_client(self, reason: str) -> None:
        """Count one connection that was ended because of a client's certificate."""
        self._refused_clients.labels(reason).inc()


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
