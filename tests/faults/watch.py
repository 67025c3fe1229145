# SPDX-License-Identifier: MIT
"""What a server shows of itself, seen from outside several times a second."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e.https import NoAnswerError
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site

_PERIOD_SECONDS: Final = 0.25
_ANSWER_SECONDS: Final = 1.5
_SAMPLE: Final = re.compile(r"^([a-z_]+(?:\{[^}]*\})?) ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Sight:
    """
    One look at a server.

    Attributes:
        at: Instant of the monotonic clock.
        status: HTTP status of ``/healthz``; 0 if nothing was answered.
        is_ok: Whether that says that all is well.
        metrics: Values by name with labels.
    """

    at: float
    status: int
    is_ok: bool
    metrics: dict[str, float]


@dataclass(frozen=True)
class Mark:
    """A moment, with what had been seen and logged until then."""

    at: float
    metrics: dict[str, float]
    server: ServerProcess
    logged_bytes: int


@dataclass(frozen=True)
class Evidence:
    """What was seen and logged from a moment on."""

    before: dict[str, float]
    sights: Sequence[Sight]
    log: Sequence[dict[str, Any]]

    @property
    def was_unwell(self) -> bool:
        """Whether ``/healthz`` said so, or was not answered."""
        return any(not sight.is_ok for sight in self.sights)

    def rose(self, name: str) -> float:
        """Return how much a counter rose, as far as it was seen."""
        latest = max((sight.metrics.get(name, 0.0) for sight in self.sights), default=0)
        return latest - self.before.get(name, 0.0)

    def __str__(self) -> str:
        events = Counter(line.get("event", "") for line in self.log)
        del events["request"]
        well = sum(sight.is_ok for sight in self.sights)
        return f"well {well} times of {len(self.sights)}, log {dict(events)}"

    def said(self, event: str, **fields: str) -> int:
        """Return how many lines of the log tell of an event."""
        wanted = {"event": event, **fields}
        return sum(wanted.items() <= line.items() for line in self.log)


class Watchman:
    """
    Looks at a server's open pages, each time over a new connection, until closed.

    Args:
        site: Where the server belongs.

        port: Where it listens, also after it was started again.
    """

    def __init__(self, site: Site, port: int) -> None:
        self._site = site
        self._port = port
        self._sights: list[Sight] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._enough.set()
        self._thread.join()

    def mark(self, server: ServerProcess) -> Mark:
        """Return this moment; nothing older is kept."""
        # Only this thread removes, and only the other one appends.
        del self._sights[:-20]
        metrics = next((s.metrics for s in reversed(self._sights) if s.metrics), {})
        size = server.log.stat().st_size
        return Mark(time.monotonic(), metrics, server, size)

    def since(self, mark: Mark, now: ServerProcess) -> Evidence:
        """Return what there was since a moment; *now* is the server that runs now."""
        with mark.server.log.open("rb") as log:
            log.seek(mark.logged_bytes)
            text = log.read()
        if now is not mark.server:
            text += now.log.read_bytes()
        lines = [line for line in text.splitlines() if line.startswith(b"{")]
        sights = [sight for sight in list(self._sights) if sight.at > mark.at]
        return Evidence(mark.metrics, sights, [json.loads(line) for line in lines])

    def _watch(self) -> None:
        while not self._enough.wait(_PERIOD_SECONDS):
            self._sights.append(self._look())

    def _look(self) -> Sight:
        try:
            with self._site.client(
                self._port, "watchman", timeout_seconds=_ANSWER_SECONDS
            ) as client:
                health = client.request("GET", "/healthz")
                shown = client.request("GET", "/metrics").body.decode()
        except NoAnswerError:
            return Sight(time.monotonic(), 0, False, {})
        metrics = {name: float(value) for name, value in _SAMPLE.findall(shown)}
        is_ok = health.json["status"] == "ok"
        return Sight(time.monotonic(), health.status, is_ok, metrics)
