# SPDX-License-Identifier: MIT
"""How much memory the processes of a fuzzed server take, from its start to its end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import groupby
from types import TracebackType
from typing import Final, Self

from tests.faults.growth import Sample, look, measure

_EVERY_SECONDS: Final = 2.0
_MIB: Final = 1024 * 1024
_GROWTH_BYTES: Final = 20 * _MIB


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


def judge(samples: Sequence[Sample]) -> list[tuple[bool, str]]:
    """
    Say for each process what it took at first, by quarters of the time, and last.

    What a process grows by while everything is done for the first time is in its first
    quarter; from there to the last one it may grow by 20 MiB.
    """
    growths = {growth.of: growth for growth in measure(samples)}
    found = []
    by_process = sorted(samples, key=_process)
    for (kind, pid), group in groupby(by_process, key=_process):
        own = [sample.rss for sample in group]
        growth = growths.get(f"{kind} {pid}")
        quarters = growth.rss if growth else [own[0], own[-1]]
        middle = " ".join(f"{value / _MIB:.1f}" for value in quarters)
        text = (
            f"{kind} {pid}: {own[0] / _MIB:.1f} MiB at first, {middle} by quarters, "
            f"{max(own) / _MIB:.1f} at most, {own[-1] / _MIB:.1f} at last"
        )
        found.append((quarters[-1] - quarters[0] <= _GROWTH_BYTES, text))
    return found


def _process(sample: Sample) -> tuple[str, int]:
    return sample.kind, sample.pid
