# SPDX-License-Identifier: MIT
"""A server under load: what users notice, what it costs, and whether that may be."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.e2e.probing import Probe, Prober, public_key, quantile
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site

CLOSE: Final = "127.0.0.1"
"""Where floods come from, and one of the users."""

ELSEWHERE: Final = "127.0.0.2"
"""Where the other user is."""

_WARM_SECONDS: Final = 3.0
_CALM_SECONDS: Final = 8.0
_SETTLED: Final = 5
"""So many answers in a row, as quick as they should be, and all is as before."""

_CLOCK_TICKS: Final = 100
_PAGE: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """
    What must hold.

    Attributes:
        slower: How many times as long the 99th percentile may be under load.
        least_seconds: A 99th percentile of this is good, whatever the factor says.
        recovery_seconds: How long after a load all may take to be as before.
        memory_seconds: How long memory may take to come back.
        kept: Which part of it may stay, to be used again.
        grown_bytes: How much all processes may grow in a flood.
        connection_bytes: How much for each connection that is held.
    """

    slower: float = 5.0
    least_seconds: float = 0.05
    recovery_seconds: float = 5.0
    memory_seconds: float = 30.0
    kept: float = 0.2
    grown_bytes: int = 64 * 1024 * 1024
    connection_bytes: int = 128 * 1024


@dataclass(kw_only=True)
class Phase:
    """
    One kind of load, and what came of it.

    Attributes:
        name: Of the load.
        seconds: How long.
        answers: Those of the load, by status.
        users: Answers to users, by who and by outcome.
        p50: Median of users elsewhere, in seconds.
        p99: Their 99th percentile.
        p99_close: The same of the user at the flooded address.
        recovery: After how many seconds all was as before.
        grown: How many bytes all processes have grown, at the end of the load.
        busy: Processor seconds of all processes.
        facts: What else is to be said.
        broken: Bounds that did not hold.
    """

    name: str
    seconds: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)
    users: dict[str, dict[str, int]] = field(default_factory=dict)
    p50: float = 0.0
    p99: float = 0.0
    p99_close: float = 0.0
    recovery: float = 0.0
    grown: int = 0
    busy: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers to the load, each second."""
        return sum(self.answers.values()) / self.seconds if self.seconds else 0.0


class Scene:
    """A server with two users."""

    def __init__(self, site: Site, server: ServerProcess, bounds: Bounds) -> None:
        self.server = server
        self.bundle = str(site.authority.bundle)
        self._bounds = bounds
        with site.client(server.port, "ada", "administrator", "operator") as client:
            key = public_key(client)
        self._probers = {
            name: Prober(
                server.port, site.context, site.token(name, "operator"), source, key
            )
            for name, source in (("elsewhere", ELSEWHERE), ("close", CLOSE))
        }
        time.sleep(_WARM_SECONDS)
        self._calm = self.measured("calm", lambda phase: time.sleep(_CALM_SECONDS))

    def stop(self) -> None:
        """Let the users go."""
        for prober in self._probers.values():
            prober.stop()

    @property
    def calm(self) -> Phase:
        """What users notice without any load."""
        return self._calm

    def measured(self, name: str, load: Callable[[Phase], None]) -> Phase:
        """Apply a load, and say what users noticed."""
        phase = Phase(name=name)
        before, busy, began = self.resident(), self._busy(), time.monotonic()
        load(phase)
        ended = time.monotonic()
        phase.grown = phase.grown or self.resident() - before
        phase.busy = self._busy() - busy
        phase.seconds = phase.seconds or ended - began
        found = {n: p.between(began, ended) for n, p in self._probers.items()}
        phase.users = {n: _outcomes(probes) for n, probes in found.items()}
        phase.p50 = quantile(found["elsewhere"], 0.5)
        phase.p99 = quantile(found["elsewhere"], 0.99)
        phase.p99_close = quantile(found["close"], 0.99)
        if name != "calm":
            phase.recovery = self._recovery(ended)
            phase.facts["seconds until memory is back"] = self._memory_back(
                before, phase.grown
            )
            phase.broken += self._broken(phase)
        return phase

    def _limit(self) -> float:
        return max(self._bounds.least_seconds, self._bounds.slower * self._calm.p99)

    def _memory_back(self, before: int, grown: int) -> float:
        """Wait until memory is what it was, or nearly; return how long that took."""
        began, kept = time.monotonic(), self._bounds.kept * max(0, grown)
        most = before + self._bounds.grown_bytes + kept
        while (waited := time.monotonic() - began) < 2 * self._bounds.memory_seconds:
            if self.resident() <= most:
                break
            time.sleep(0.25)
        return round(waited, 1)

    def _recovery(self, since: float) -> float:
        """Wait until all is as before; return how long that took."""
        longest = since + 2 * self._bounds.recovery_seconds + 5
        while time.monotonic() < longest:
            time.sleep(0.25)
            found = self._probers["elsewhere"].between(since, time.monotonic())
            for at in range(len(found) - _SETTLED + 1):
                row = found[at : at + _SETTLED]
                if all(p.outcome == "ok" and p.seconds <= self._limit() for p in row):
                    return row[0].at - since
        return time.monotonic() - since

    def _broken(self, phase: Phase) -> list[str]:
        bounds, broken = self._bounds, []
        if any(outcomes.get("wrong") for outcomes in phase.users.values()):
            broken.append("a wrong result")
        if set(phase.users["elsewhere"]) != {"ok"}:
            broken.append("users elsewhere were refused")
        if phase.p99 > self._limit():
            broken.append(f"99th percentile above {1000 * self._limit():.0f} ms")
        if phase.recovery > bounds.recovery_seconds:
            broken.append("recovery took too long")
        if phase.facts["seconds until memory is back"] > bounds.memory_seconds:
            broken.append("memory was kept")
        held = phase.facts.get("connections", 0)
        if phase.grown > bounds.grown_bytes + held * bounds.connection_bytes:
            broken.append("memory grew")
        return broken

    def resident(self) -> int:
        """Return how many bytes of memory all processes have, together."""
        pids = self.server.processes().values()
        statm = (Path(f"/proc/{pid}/statm").read_text().split() for pid in pids)
        return sum(int(words[1]) for words in statm) * _PAGE

    def _busy(self) -> float:
        pids = self.server.processes().values()
        stats = (Path(f"/proc/{pid}/stat").read_text() for pid in pids)
        words = (stat.rpartition(")")[2].split() for stat in stats)
        return sum(int(word[11]) + int(word[12]) for word in words) / _CLOCK_TICKS

    def connections(self) -> int:
        """Return how many connections front ends have, as far as can be seen."""
        return sum(
            len(list(Path(f"/proc/{pid}/fd").iterdir()))
            for name, pid in self.server.processes().items()
            if name.startswith("front")
        )


def _outcomes(probes: Sequence[Probe]) -> dict[str, int]:
    return dict(Counter(probe.outcome for probe in probes))
