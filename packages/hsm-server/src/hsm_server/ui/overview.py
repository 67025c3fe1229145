# SPDX-License-Identifier: MIT
"""Overview page: health, open approval requests and live figures."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import msgspec
from aiohttp import web

from hsm_core.errors import AuthenticationError, HSMError
from hsm_core.model import ApprovalState
from hsm_core.operations import (
    AlgorithmStatus,
    ApprovalInfo,
    HSMStatus,
    ListApprovals,
    Status,
)
from hsm_server.__about__ import __version__
from hsm_server.api.live_view import answer_events, event
from hsm_server.http.problems import problem_of
from hsm_server.http.state import HEALTH, VAULT
from hsm_server.observability.metrics import Figures
from hsm_server.ui.view import Page, View
from hsm_server.vault.access import Who

WIDTH: Final = 240
HEIGHT: Final = 64
_MOST_POINTS: Final = 60
_STEP: Final = WIDTH / (_MOST_POINTS - 1)


@dataclass(frozen=True, slots=True)
class Chart:
    """
    A line chart and its values as text.

    Attributes:
        title: Title, with the unit.
        now: The newest value, as text.
        most: The maximum, as text.
        line: ``points`` of the line; empty where there are fewer than two.
        area: ``points`` of the area below the line.
    """

    title: str
    now: str
    most: str
    line: str
    area: str


def chart(title: str, values: Sequence[float]) -> Chart:
    """
    Return the chart of values, newest last.

    The newest is at the right edge; the maximum is at the top.

    Args:
        title: Title, with the unit.

        values: Not negative. Only the last 60 are shown.
    """
    shown = list(values)[-_MOST_POINTS:]
    top = max(shown, default=0.0)
    begin = WIDTH - (len(shown) - 1) * _STEP
    points = [
        f"{begin + index * _STEP:.1f},{_height(value, top):.1f}"
        for index, value in enumerate(shown)
    ]
    line = " ".join(points) if len(points) > 1 else ""
    area = f"{begin:.1f},{HEIGHT} {line} {WIDTH},{HEIGHT}" if line else ""
    return Chart(title, _short(shown[-1] if shown else 0.0), _short(top), line, area)


def _height(value: float, top: float) -> float:
    # A line of 2 units must fit between both edges.
    return HEIGHT - 2 - (value / top if top > 0 else 0.0) * (HEIGHT - 4)


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


_SOON_SECONDS: Final = 14 * 86400
_STAPLE_SOON_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Row:
    """
    One value of a card.

    Attributes:
        value: Text; numbers are grouped by thousands.
        kind: ``ok``, ``warn``, ``bad`` or ``info`` shows a badge; empty shows text.
    """

    label: str
    value: str | int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A group of values."""

    title: str
    rows: Sequence[Row]


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
    queue = (
        Row("Scheduler", *_scheduler(status)),
        Row("Queue", retention.queue),
        Row("Scheduled", retention.scheduled_total),
        Row("Completed", retention.completed_total),
    )
    loads = (
        Row("Hits", cache.hits),
        Row("Misses", cache.misses),
        Row("Stores", cache.stores),
    )
    return [
        Card("Health", _health(status)),
        Card("Audit log and stores", _stores(status)),
        Card("Retention", queue),
        Card("Key cache", loads),
        *([Card("Cluster", _cluster(status))] if status.cluster.node else []),
    ]


def _cluster(status: HSMStatus) -> Sequence[Row]:
    cluster, mark = status.cluster, status.cluster.mark_problem
    ahead = cluster.clock_difference_seconds
    return (
        Row("This node", cluster.node),
        Row("Live nodes", cluster.nodes_live),
        Row("Decisions", *_availability(cluster.decides)),
        Row("Revision", cluster.revision),
        Row("Policies in force", cluster.policies, _good(cluster.policies <= 1)),
        Row("Synchronous standby", "yes")
        if cluster.has_standby
        else Row("Synchronous standby", "none", "warn"),
        Row(
            "Last-seen mark",
            mark or "kept",
            _good(not cluster.mark_problem),
        ),
        Row("Clock ahead", f"{ahead:.3f} s", "" if abs(ahead) < 1 else "warn"),
    )


def _health(status: HSMStatus) -> Sequence[Row]:
    stopped = sum(a.status == "stopped" for a in status.algorithms)
    available = sum(a.status == "available" for a in status.algorithms)
    is_locked = status.state == "locked"
    is_sound = not (status.tampered_keys or status.store.findings)
    tests = f"{stopped} failed" if stopped else f"{available} passed"
    return (
        Row("State", status.state, _good(status.state == "operational")),
        Row("Seal", "locked" if is_locked else "unlocked", _good(not is_locked)),
        Row("Integrity", _integrity(status), _good(is_sound)),
        Row("Self-tests", tests, _good(not stopped)),
        Row("Keys", status.keys),
    )


def _stores(status: HSMStatus) -> Sequence[Row]:
    policy = status.policy
    return (
        Row("Audit log", status.audit.state, _good(_takes_all(status))),
        Row("Key store", *_availability(status.store.available)),
        Row("Approvals", *_availability(status.approvals.available)),
        Row("Policy", policy.source)
        if policy.current
        else Row("Policy", "invalid policy file", "warn"),
    )


def _of_server(figures: Figures, now: datetime) -> list[Card]:
    unexpected = figures.unexpected
    limiter = (
        Row("Allowed", figures.rate_allowed),
        Row("Blocked", figures.rate_blocked),
        Row("Active buckets", figures.rate_buckets),
    )
    requests = (
        Row("Operations", sum(figures.operations.values())),
        Row("Error responses", sum(figures.failures.values())),
        Row("JWT failures", figures.jwt_failures),
        Row("Internal errors", unexpected, "bad" if unexpected else ""),
    )
    expiries = (
        *_expiries("Certificate", figures.certificates, now, _SOON_SECONDS),
        *_expiries("OCSP staple", figures.staples, now, _STAPLE_SOON_SECONDS),
    )
    uptime = Row("Uptime", _duration(figures.uptime_seconds))
    return [
        Card("Rate limiter", limiter),
        Card("Requests", requests),
        Card("TLS", expiries or (Row("Certificate", "none on this listener"),)),
        Card("Server", (uptime, Row("Version", __version__))),
    ]


def providers(
    algorithms: Iterable[AlgorithmStatus],
) -> Sequence[tuple[str, str, int, Sequence[str]]]:
    """Return name, version, number of algorithms and failed ones of each provider."""
    found: dict[tuple[str, str], list[AlgorithmStatus]] = {}
    for algorithm in algorithms:
        if algorithm.provider:
            key = (algorithm.provider, algorithm.provider_version)
            found.setdefault(key, []).append(algorithm)
    return [
        (*key, len(rows), [a.algorithm.value for a in rows if a.status == "stopped"])
        for key, rows in sorted(found.items())
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
        count = max(status.tampered_keys, len(status.store.findings))
        return "1 finding" if count == 1 else f"{count:,} findings"
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


PERIOD_SECONDS: Final = 2.0
"""Minimum interval between two reads of the figures, shared by all viewers."""

_MAX_GAP_SECONDS: Final = 30.0
_LIVE: Final = "live_view"


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    operations: int
    timed: int
    busy_seconds: float


class FigureSampler:
    """
    Sampler of the server's figures, shared by all viewers.

    Args:
        snapshot: Reads the figures. It may block and is called in a thread.

        monotonic: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        snapshot: Callable[[], Figures],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._figures: Figures | None = None
        self._samples: deque[_Sample] = deque(maxlen=_MOST_POINTS + 1)

    @property
    def rates(self) -> Sequence[tuple[float, float]]:
        """Operations per second and mean latency in ms of two minutes, newest last."""
        return [_rate(*pair) for pair in pairwise(self._samples)]

    async def look(self) -> Figures:
        """Return figures no older than `PERIOD_SECONDS`."""
        async with self._lock:
            now = self._monotonic()
            age = now - self._samples[-1].at if self._samples else float("inf")
            if self._figures is None or age >= PERIOD_SECONDS:
                self._figures = await asyncio.to_thread(self._snapshot)
                if age > _MAX_GAP_SECONDS:
                    # No samples in between: the chart starts again.
                    self._samples.clear()
                self._samples.append(_sample(self._figures, now))
            return self._figures


def _sample(figures: Figures, now: float) -> _Sample:
    operations = sum(figures.operations.values())
    # A live view's duration is not latency.
    timed = operations - figures.operations.get(_LIVE, 0)
    return _Sample(now, operations, timed, figures.mean_seconds * timed)


def _rate(last: _Sample, sample: _Sample) -> tuple[float, float]:
    timed = sample.timed - last.timed
    busy = max(0.0, sample.busy_seconds - last.busy_seconds)
    rate = max(0, sample.operations - last.operations) / (sample.at - last.at)
    return rate, busy / timed * 1000 if timed > 0 else 0.0


SAMPLER: Final = web.AppKey("SAMPLER", FigureSampler)
"""Application key of the sampler."""


_MOST_WAITING: Final = 5
_LOOKED_AT: Final = 100


async def _show(view: View) -> web.Response:
    status = await view.execute(Status())
    approvals, fault = await _approvals(view)
    waiting = pending_for(view.who, approvals)
    return view.render(
        "overview/overview.html",
        hsm=status,
        providers=providers(status.algorithms),
        waiting=waiting[:_MOST_WAITING],
        more=max(0, len(waiting) - _MOST_WAITING),
        approvals_fault=fault,
        **await _live_values(view, status),
    )


async def _approvals(view: View) -> tuple[tuple[ApprovalInfo, ...], str]:
    """Return pending approval requests, or the error of listing them."""
    operation = ListApprovals(states=(ApprovalState.PENDING,), per_page=_LOOKED_AT)
    try:
        return (await view.execute(operation)).items, ""
    except AuthenticationError:
        raise
    except HSMError as error:
        return (), problem_of(error, "").detail


async def _live_values(view: View, status: HSMStatus | None) -> dict[str, Any]:
    # Without a first refresh, the vault would look dead.
    await view.request.app[HEALTH].refresh()
    sampler = view.request.app[SAMPLER]
    figures = await sampler.look()
    if status is not None:
        figures = msgspec.structs.replace(figures, status=status)
    rates = sampler.rates
    return {
        "concern": concern(figures.status),
        "cards": cards(figures, datetime.now(UTC)),
        "charts": [
            chart("Operations per second", [rate for rate, _ in rates]),
            chart("Mean latency, ms", [latency for _, latency in rates]),
        ],
    }


async def _live(view: View) -> web.StreamResponse:
    """Stream the live part until the session ends."""
    return await answer_events(view.request, view.exchange, _parts(view))


async def _parts(view: View) -> AsyncGenerator[bytes, None]:
    while True:
        values = await _live_values(view, None)
        yield event("part", view.markup("overview/_live.html", **values).encode())
        await asyncio.sleep(PERIOD_SECONDS)
        vault = view.request.app[VAULT]
        await vault.who(view.visitor, known=view.exchange.know)


PAGES: Final = (
    Page("GET", "", _show, "overview"),
    Page("GET", "/overview/live", _live, "overview.live", is_background=True),
)
"""Pages of this module."""
