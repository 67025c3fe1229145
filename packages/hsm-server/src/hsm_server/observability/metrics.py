# SPDX-License-Identifier: MIT
"""Metrics of a process: exposition, key figures, and files shared by all processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, values
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from hsm_core.errors import UnavailableError
from hsm_core.model import Record
from hsm_core.operations import OPERATIONS, HSMStatus
from hsm_server.observability.instruments import Instruments
from hsm_server.observability.vault_state import StateCollector

_LIVE: Final = "live_view"
_KINDS: Final = frozenset({_LIVE, *(kind.__name__ for kind in OPERATIONS)})


class Figures(Record, frozen=True, kw_only=True):
    """
    Key figures over all processes of the server.

    Attributes:
        uptime_seconds: Time since the server started.
        status: Last status of the vault; None if it did not respond.
        operations: Requests for operations, by operation.
        failures: Failed operations, by error code.
        operations_per_second: Average since the start.
        mean_seconds: Mean duration of an operation without live views; 0 without any.
        jwt_failures: Requests with a missing or invalid token.
        rate_allowed: Requests within their rate limit.
        rate_blocked: Requests above it.
        rate_buckets: Callers with a bucket.
        unexpected: Requests that failed with an unexpected exception.
        certificates: Expiry of each certificate in use, by kind.
        staples: Expiry of OCSP staples, by kind.
        handshakes: Successful TLS handshakes, by key exchange group.
    """

    uptime_seconds: float
    status: HSMStatus | None
    operations: Mapping[str, int]
    failures: Mapping[str, int]
    operations_per_second: float
    mean_seconds: float
    jwt_failures: int
    rate_allowed: int
    rate_blocked: int
    rate_buckets: int
    unexpected: int
    certificates: Mapping[str, datetime]
    staples: Mapping[str, datetime]
    handshakes: Mapping[str, int]


def figures_of(
    families: Iterable[Metric], status: HSMStatus | None, uptime_seconds: float
) -> Figures:
    """
    Return the key figures of an exposition.

    Missing values are 0.
    """
    found = _Samples(families)
    requests = found.having("ferrohsm_requests_total", _is_operation)
    operations = _sums(requests, "operation")
    took = found.having("ferrohsm_request_seconds_sum", _is_timed)
    times = found.having("ferrohsm_request_seconds_count", _is_timed)
    failed = [sample for sample in requests if sample.labels["code"] != "ok"]
    shaken = found.having("ferrohsm_tls_handshakes_total", _went_well)
    return Figures(
        uptime_seconds=uptime_seconds,
        status=status,
        operations=operations,
        failures=_sums(failed, "code"),
        operations_per_second=sum(operations.values()) / max(uptime_seconds, 1.0),
        mean_seconds=_total(took) / (_total(times) or 1.0),
        jwt_failures=found.sum("ferrohsm_auth_jwt_failure_total"),
        rate_allowed=found.sum("ferrohsm_rate_limit_allowed_total"),
        rate_blocked=found.sum("ferrohsm_rate_limit_blocked_total"),
        rate_buckets=found.sum("ferrohsm_rate_limit_buckets"),
        unexpected=found.sum("ferrohsm_unexpected_exceptions_total"),
        certificates=found.instants("ferrohsm_tls_certificate_not_after_seconds"),
        staples=found.instants("ferrohsm_ocsp_staple_expires_seconds"),
        handshakes=_sums(shaken, "group"),
    )


class _Samples:
    """Samples of an exposition, by name."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._found: dict[str, list[Sample]] = {}
        for family in families:
            for sample in family.samples:
                self._found.setdefault(sample.name, []).append(sample)

    def having(self, name: str, is_wanted: Callable[[Sample], bool]) -> list[Sample]:
        """Return those samples of a name that are wanted."""
        return [sample for sample in self._found.get(name, ()) if is_wanted(sample)]

    def sum(self, name: str) -> int:
        """Return the sum of all samples of a name."""
        return int(_total(self._found.get(name, ())))

    def instants(self, name: str) -> dict[str, datetime]:
        """Return instants by their kind; 0 stands for none."""
        return {
            sample.labels["kind"]: datetime.fromtimestamp(sample.value, UTC)
            for sample in self._found.get(name, ())
            if sample.value > 0
        }


def _is_operation(sample: Sample) -> bool:
    return sample.labels["operation"] in _KINDS


def _is_timed(sample: Sample) -> bool:
    # A live view lasts as long as its client watches.
    return _is_operation(sample) and sample.labels["operation"] != _LIVE


def _went_well(sample: Sample) -> bool:
    return sample.labels["outcome"] == "ok"


def _total(samples: Iterable[Sample]) -> float:
    return sum(sample.value for sample in samples)


def _sums(samples: Iterable[Sample], label: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for sample in samples:
        name = sample.labels[label]
        sums[name] = sums.get(name, 0) + int(sample.value)
    return sums


METRIC_FILES: Final = ("counter", "histogram", "gauge_sum", "gauge_mostrecent")
"""Prefixes of prometheus_client's files of a process, by kind of metric."""

_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the library's own name


def share_metrics(folder: Path, slot: str) -> None:
    """
    Let all `Metrics` that this process makes from now on count in a shared folder.

    Args:
        folder: Folder of all processes of one server.

        slot: Name of this process, without underscores. No two running processes
            have the same; one that is started again has the same as before.
    """
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def leave_shared_metrics() -> None:
    """Unmap the files of the process that forked this one."""
    values.close_all_multiprocess_files()  # type: ignore[no-untyped-call]


def shared_folder() -> Path | None:
    """Return the folder in which this process counts, if it shares one."""
    folder = os.environ.get(_FOLDER)
    return None if folder is None else Path(folder)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError("The metrics can't be read now.") from error


METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the Prometheus text format."""


class Metrics:
    """
    All metrics of ``/metrics``. No label contains a key ID or a principal.

    Args:
        started: Start of the service on the monotonic clock; now by default.

    Attributes:
        registry: Registry of this object alone.
    """

    def __init__(self, started: float | None = None) -> None:
        self._instruments = Instruments()
        self.registry = self._instruments.registry
        began = time.monotonic() if started is None else started
        self._state = StateCollector(began)
        self.registry.register(self._state)
        self._folder = shared_folder()
        self._shown_buckets: dict[str, int] = {}

    def count_request(self, operation: str, code: str, seconds: float) -> None:
        """Count one answer."""
        self._count("ferrohsm_requests_total", operation, code)
        self._instruments["ferrohsm_request_seconds", operation].observe(seconds)

    def count_unexpected(self) -> None:
        """Count an unexpected exception."""
        self._count("ferrohsm_unexpected_exceptions_total")

    def count_jwt_failure(self) -> None:
        """Count one request without valid token."""
        self._count("ferrohsm_auth_jwt_failure_total")

    def show_jwt_alarm(self, *, is_on: bool) -> None:
        """Show whether the keys of tokens can't be read; count it if so."""
        self._show("ferrohsm_auth_jwt_alarm", "keys", value=is_on)
        if is_on:
            self._count("ferrohsm_auth_jwt_reload_failures_total")

    def show_clock_behind(self, seconds: float) -> None:
        """Show how far the wall clock is behind the time of tokens."""
        self._show("ferrohsm_clock_behind_seconds", value=seconds)

    def count_allowed(self, limit: str) -> None:
        """Count one request that was let through."""
        self._count("ferrohsm_rate_limit_allowed_total", limit)

    def count_blocked(self, limit: str) -> None:
        """Count one request that was refused."""
        self._count("ferrohsm_rate_limit_blocked_total", limit)

    def show_buckets(self, limit: str, number: int) -> None:
        """Show how many buckets there are."""
        if self._shown_buckets.get(limit) != number:
            self._shown_buckets[limit] = number
            self._show("ferrohsm_rate_limit_buckets", limit, value=number)

    def count_violation(self, reason: str) -> None:
        """Count one connection that broke the rules between our processes."""
        self._count("ferrohsm_vault_violations_total", reason)

    def count_restart(self, process: str) -> None:
        """Count one process that had to be started again."""
        self._count("ferrohsm_process_restarts_total", process)

    def count_handshake(self, outcome: str, group: str) -> None:
        """Count one TLS handshake, however it ended."""
        self._count("ferrohsm_tls_handshakes_total", outcome, group)

    def count_tls_alarm(self, part: str) -> None:
        """Count one alarm about TLS."""
        self._count("ferrohsm_tls_alarms_total", part)

    def show_tls_alarm(self, part: str, *, is_on: bool) -> None:
        """Show whether something is wrong with a part of TLS."""
        self._show("ferrohsm_tls_alarm", part, value=is_on)

    def count_refused_client(self, reason: str) -> None:
        """Count one connection that was ended because of a client's certificate."""
        self._count("ferrohsm_ocsp_clients_refused_total", reason)

    def count_ocsp(self, about: str, result: str) -> None:
        """Count one question to an OCSP responder."""
        self._count("ferrohsm_ocsp_questions_total", about, result)

    def show_staple(self, kind: str, expires_at: float) -> None:
        """Show until when a staple is good, in Unix time; 0 for none."""
        self._show("ferrohsm_ocsp_staple_expires_seconds", kind, value=expires_at)

    def count_order(self, outcome: str) -> None:
        """Count one certificate that was ordered, or should have been."""
        self._count("ferrohsm_acme_orders_total", outcome)

    def show_next_order(self, authority: str, instant: float) -> None:
        """Show when a CA is next asked for a certificate, in Unix time."""
        self._show("ferrohsm_acme_next_order_seconds", authority, value=instant)

    def _count(self, *key: str) -> None:
        self._instruments[key].inc()

    def _show(self, *key: str, value: float) -> None:
        self._instruments[key].set(value)

    @property
    def unexpected(self) -> int:
        """How many unexpected exceptions there were."""
        value = self.registry.get_sample_value("ferrohsm_unexpected_exceptions_total")
        return int(value or 0)

    @property
    def uptime_seconds(self) -> float:
        """Time since the service began, in seconds."""
        return self._state.uptime_seconds

    def show_certificates(self, ends: Mapping[str, float]) -> None:
        """Show until when each certificate in use is valid, in Unix time, by kind."""
        self._state.certificates = dict(ends)

    def show(self, status: HSMStatus | None, /) -> None:
        """Show what the HSM says of itself; None if it doesn't answer."""
        self._state.status = status

    def exposition(self) -> bytes:
        """
        Return all values, of all processes, in the Prometheus text format.

        Raises:
            UnavailableError: Their files can't be read, such as without a descriptor.
        """
        with _reading():
            return generate_latest(self._everything())

    def snapshot(self) -> Figures:
        """Return the key figures over all processes; errors as of `exposition`."""
        with _reading():
            families = self._everything().collect()
            return figures_of(families, self._state.status, self.uptime_seconds)

    def _everything(self) -> CollectorRegistry:
        if self._folder is None:
            return self.registry
        everything = CollectorRegistry()
        MultiProcessCollector(everything, str(self._folder))  # type: ignore[no-untyped-call]
        everything.register(self._state)
        return everything
