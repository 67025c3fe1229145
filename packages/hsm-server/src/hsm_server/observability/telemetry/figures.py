# SPDX-License-Identifier: MIT
"""Key figures of the console, computed from the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from hsm_core.model import Record
from hsm_core.operations import OPERATIONS, HSMStatus

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
