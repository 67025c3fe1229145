# SPDX-License-Identifier: MIT
"""Status of HSM and server as the overview shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hsm_core.operations import AlgorithmStatus, ApprovalInfo, HSMStatus
from hsm_server.__about__ import __version__
from hsm_server.observability.metrics import Figures
from hsm_server.vault.access import Who

_SOON_SECONDS: Final = 14 * 86400
_STAPLE_SOON_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Row:
    """
    One value of a card.

    Attributes:
        kind: ``ok``, ``warn``, ``bad`` or ``info`` shows a badge; empty shows text.
    """

    label: str
    value: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A group of values."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """A provider, its number of algorithms, and those with failed self-tests."""

    name: str
    version: str
    algorithms: int
    stopped: tuple[str, ...]


def concern(status: HSMStatus | None) -> str:
    """Return the most urgent problem as a sentence; empty if there is none."""
    if status is None:
        return "The vault process does not respond. The figures below are out of date."
    if status.state == "locked":
        reason = status.store.locked
        return f"The HSM is locked: {reason}" if reason else "The HSM is locked."
    if status.audit.state == "reserve":
        return "The audit disk is full. Only recovery and administration are possible."
    if not _takes_all(status):
        cause = status.audit.cause or "closed"
        return f"The audit log can't be written ({cause}). Operations are rejected."
    if status.state == "error":
        return "The HSM is in its error state. Restart it to resume operation."
    if status.tampered_keys:
        return f"Integrity check failed: {_count(status.tampered_keys, 'key')} altered."
    if status.state != "operational":
        return "The HSM is operational with problems. See below."
    return ""


def cards(figures: Figures, now: datetime) -> Sequence[Card]:
    """Return the cards of the overview."""
    found = [] if figures.status is None else _of_hsm(figures.status)
    return [*found, *_of_server(figures, now)]


def _of_hsm(status: HSMStatus) -> list[Card]:
    retention, cache = status.retention, status.key_cache
    return [
        Card("Health", _health(status)),
        Card("Audit log and stores", _stores(status)),
        Card(
            "Retention",
            (
                Row("Scheduler", *_scheduler(status)),
                Row("Queue", f"{retention.queue:,}"),
                Row("Scheduled", f"{retention.scheduled_total:,}"),
                Row("Completed", f"{retention.completed_total:,}"),
            ),
        ),
        Card(
            "Key cache",
            (
                Row("Hits", f"{cache.hits:,}"),
                Row("Misses", f"{cache.misses:,}"),
                Row("Stores", f"{cache.stores:,}"),
            ),
        ),
    ]


def _health(status: HSMStatus) -> tuple[Row, ...]:
    stopped = sum(a.status == "stopped" for a in status.algorithms)
    available = sum(a.status == "available" for a in status.algorithms)
    is_locked = status.state == "locked"
    is_sound = not (status.tampered_keys or status.store.findings)
    return (
        Row("State", status.state, _good(status.state == "operational")),
        Row("Seal", "locked" if is_locked else "unlocked", _good(not is_locked)),
        Row("Integrity", _integrity(status), _good(is_sound)),
        Row(
            "Self-tests",
            f"{stopped} failed" if stopped else f"{available} passed",
            _good(not stopped),
        ),
        Row("Keys", f"{status.keys:,}"),
    )


def _stores(status: HSMStatus) -> tuple[Row, ...]:
    policy = (
        Row("Policy", status.policy.source)
        if status.policy.current
        else Row("Policy", "invalid policy file", "warn")
    )
    return (
        Row("Audit log", status.audit.state, _good(_takes_all(status))),
        Row("Key store", *_availability(status.store.available)),
        Row("Approvals", *_availability(status.approvals.available)),
        policy,
    )


def _of_server(figures: Figures, now: datetime) -> list[Card]:
    unexpected = figures.unexpected
    return [
        Card(
            "Rate limiter",
            (
                Row("Allowed", f"{figures.rate_allowed:,}"),
                Row("Blocked", f"{figures.rate_blocked:,}"),
                Row("Active buckets", f"{figures.rate_buckets:,}"),
            ),
        ),
        Card(
            "Requests",
            (
                Row("Operations", f"{sum(figures.operations.values()):,}"),
                Row("Error responses", f"{sum(figures.failures.values()):,}"),
                Row("JWT failures", f"{figures.jwt_failures:,}"),
                Row("Internal errors", f"{unexpected:,}", "bad" if unexpected else ""),
            ),
        ),
        Card(
            "TLS",
            (
                *_expiries("Certificate", figures.certificates, now, _SOON_SECONDS),
                *_expiries("OCSP staple", figures.staples, now, _STAPLE_SOON_SECONDS),
            )
            or (Row("Certificate", "none on this listener"),),
        ),
        Card(
            "Server",
            (
                Row("Uptime", _duration(figures.uptime_seconds)),
                Row("Version", __version__),
            ),
        ),
    ]


def providers(algorithms: Iterable[AlgorithmStatus]) -> Sequence[ProviderRow]:
    """Return the providers, by name."""
    found: dict[tuple[str, str], list[AlgorithmStatus]] = {}
    for algorithm in algorithms:
        if algorithm.provider:
            key = (algorithm.provider, algorithm.provider_version)
            found.setdefault(key, []).append(algorithm)
    return [
        ProviderRow(
            name,
            version,
            len(served),
            tuple(a.algorithm.value for a in served if a.status == "stopped"),
        )
        for (name, version), served in sorted(found.items())
    ]


def pending_for(who: Who, approvals: Iterable[ApprovalInfo]) -> Sequence[ApprovalInfo]:
    """
    Return the requests that a person can probably decide.

    Excludes their own requests, those that they have decided, and those whose rules
    require other roles. The core checks each decision again.
    """
    return [a for a in approvals if _waits_for(who, a)]


def _waits_for(who: Who, approval: ApprovalInfo) -> bool:
    if approval.operation.requester == who.principal:
        return False
    if any(d.principal == who.principal for d in approval.decisions):
        return False
    return any(
        not demand.roles or set(demand.roles) & set(who.roles)
        for demand in approval.demands
    )


def _takes_all(status: HSMStatus) -> bool:
    """Return whether the audit log accepts all records."""
    return status.audit.available and status.audit.state == "ok"


def _integrity(status: HSMStatus) -> str:
    if status.tampered_keys or status.store.findings:
        return f"{max(status.tampered_keys, len(status.store.findings))} findings"
    if status.store.compared < status.store.to_compare:
        return f"verified {status.store.compared:,} of {status.store.to_compare:,}"
    return "verified"


def _scheduler(status: HSMStatus) -> tuple[str, str]:
    if not status.retention.enabled:
        return "off", ""
    return ("healthy", "ok") if status.retention.healthy else ("degraded", "warn")


def _availability(is_available: bool) -> tuple[str, str]:
    return ("available", "ok") if is_available else ("unavailable", "bad")


def _good(is_good: bool) -> str:
    return "ok" if is_good else "bad"


def _expiries(
    label: str, ends: Mapping[str, datetime], now: datetime, soon: float
) -> list[Row]:
    return [
        Row(f"{label} ({kind})", *_expiry(end, now, soon))
        for kind, end in sorted(ends.items())
    ]


def _expiry(end: datetime, now: datetime, soon: float) -> tuple[str, str]:
    left = (end - now).total_seconds()
    text = f"{end.astimezone(UTC):%Y-%m-%d}"
    if left <= 0:
        return f"expired {text}", "bad"
    return (f"until {text}", "warn" if left < soon else "ok")


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _count(number: int, noun: str) -> str:
    return f"1 {noun} was" if number == 1 else f"{number:,} {noun}s were"
