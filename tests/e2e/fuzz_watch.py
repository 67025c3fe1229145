# SPDX-License-Identifier: MIT
"""How much memory the processes of a fuzzed server take, from its start to its end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import groupby
from types import TracebackType
from typing import Final, Self

from tests.faults.growth import Sample, look, measure

__all__ = ["Watch", "told"]

_EVERY_SECONDS: Final = 2.0
_MIB: Final = 1024 * 1024


class Watch:
    """
    A thread that looks at a server's processes now and then.

    Args:
        server: Process id of the supervisor.

    Attributes:
        samples: What it has seen so far, in the order of time.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.samples.extend(look(self._server))
            if self._end.wait(_EVERY_SECONDS):
                return


def told(samples: Sequence[Sample]) -> list[str]:
    """Say for each process what it took at first, by quarters of the time, and last."""
    lines = []
    growths = {growth.of: growth for growth in measure(samples)}
    by_process = sorted(samples, key=_process)
    for (kind, pid), found in groupby(by_process, key=_process):
        own = [sample.rss for sample in found]
        growth = growths.get(f"{kind} {pid}")
        quarters = growth.rss if growth else []
        middle = " ".join(f"{value / _MIB:.1f}" for value in quarters) or "too few"
        lines.append(
            f"{kind} {pid}: {own[0] / _MIB:.1f} MiB at first, {middle} by quarters, "
            f"{max(own) / _MIB:.1f} at most, {own[-1] / _MIB:.1f} at last"
        )
    return lines


def _process(sample: Sample) -> tuple[str, int]:
    return sample.kind, sample.pid
