# SPDX-License-Identifier: MIT
"""Whether the processes of a server grow: memory, threads, open files."""

import contextlib
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.e2e.family import PROGRAMS, members
from tests.faults.expectation import check

_LEAST_SAMPLES: Final = 12
_FIRST_SAMPLES: Final = 6
"""The soak takes them in a minute, in which threads start and caches fill."""
_RSS_SHARE: Final = 0.10
_RSS_BYTES: Final = 20 * 1024 * 1024
_COUNT: Final = 6
_VERSION_BYTES: Final = 8 * 1024
"""What a version of a key takes for good, with its key loaded."""


@dataclass(frozen=True)
class Sample:
    """
    One process at one moment.

    Attributes:
        kind: ``supervisor``, ``vault``, ``tls_manager`` or ``front end``.
        rss: Resident memory, in bytes, without what versions of keys take in a vault.
    """

    kind: str
    pid: int
    rss: int
    threads: int
    descriptors: int


@dataclass(frozen=True)
class Growth:
    """
    The medians of the quarters of some samples, in their order in time.

    What grows does so from each quarter to the next. A single step, as by the largest
    body so far, is no growth: memory that was needed once is kept to be used again.

    Attributes:
        of: What they are of.
        count: How many there were.
        rss: In bytes.
        threads: Number.
        descriptors: Number.
    """

    of: str
    count: int
    rss: Sequence[float]
    threads: Sequence[float]
    descriptors: Sequence[float]

    @property
    def is_noise(self) -> bool:
        """Whether it is less than 10 % and 20 MiB, and 6 threads and files."""
        return self.is_within(_RSS_SHARE)

    def is_within(self, share: float) -> bool:
        """Return the same for another share of memory than 10 %."""
        return (
            _steady(self.rss) < min(self.rss[0] * share, _RSS_BYTES)
            and _steady(self.threads) < _COUNT
            and _steady(self.descriptors) < _COUNT
        )

    def __str__(self) -> str:
        rss = [value / 1024**2 for value in self.rss]
        return (
            f"{self.of} ({self.count} samples): {_told(rss, 1)} MiB, "
            f"{_told(self.threads)} threads, {_told(self.descriptors)} files"
        )


def _steady(quarters: Sequence[float]) -> float:
    """Return by how much a value would grow if each step were the least one."""
    return 3 * min(after - before for before, after in pairwise(quarters))


def _told(values: Sequence[float], digits: int = 0) -> str:
    return " ".join(f"{value:.{digits}f}" for value in values)


def look(server: int, *, versions: int = 0) -> Iterator[Sample]:
    """
    Give a sample of each process of a server that is still there.

    Args:
        server: Process of the supervisor.

        versions: How many versions its keys have.
    """
    found = {"supervisor": [server]} | {k: members(server, k) for k in PROGRAMS}
    for kind, pids in found.items():
        for pid in pids:
            with contextlib.suppress(OSError):
                yield _sample(kind, pid, versions if kind == "vault" else 0)


def _sample(kind: str, pid: int, versions: int) -> Sample:
    place = Path(f"/proc/{pid}")
    pages = int((place / "statm").read_text().split()[1])
    return Sample(
        kind,
        pid,
        pages * os.sysconf("SC_PAGE_SIZE") - versions * _VERSION_BYTES,
        len(list((place / "task").iterdir())),
        len(list((place / "fd").iterdir())),
    )


def without_first(samples: Sequence[Sample]) -> list[Sample]:
    """Return samples without those of the first minute of each process."""
    seen: Counter[tuple[str, int]] = Counter()
    found = []
    for sample in samples:
        process = sample.kind, sample.pid
        seen[process] += 1
        if seen[process] > _FIRST_SAMPLES:
            found.append(sample)
    return found


def measure(samples: Sequence[Sample]) -> list[Growth]:
    """Return the growth of each kind, and of each process that lived long enough."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[f"every {sample.kind}"].append(sample)
        groups[f"{sample.kind} {sample.pid}"].append(sample)
    return [
        _growth(name, group)
        for name, group in groups.items()
        if len(group) >= _LEAST_SAMPLES
    ]


def check_growth(found: Sequence[Growth]) -> None:
    """
    Check that nothing grows by more than noise.

    Raises:
        Violation: Something does.
    """
    for growth in found:
        check(growth.is_noise, "a process grows", str(growth))


def _growth(name: str, group: Sequence[Sample]) -> Growth:
    bounds = [len(group) * n // 4 for n in range(5)]
    parts = [group[begin:end] for begin, end in pairwise(bounds)]

    def medians(attribute: str) -> list[float]:
        return [
            statistics.median(getattr(s, attribute) for s in part) for part in parts
        ]

    return Growth(
        name, len(group), medians("rss"), medians("threads"), medians("descriptors")
    )
