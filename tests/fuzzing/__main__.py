# SPDX-License-Identifier: MIT
"""
Fuzzes parsers, each in a process of its own, and says what came of it.

``python -m tests.fuzzing --runs 100000`` fuzzes all; names of targets after it, those.
A finding is written into the folder that is said at the end, as the input that shows
it. The same input is to become a row of ``test_findings.py``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hsm_server.tls.openssl  # noqa: F401 (before anything loads cryptography)
from tests.fuzzing.catalogue import all_targets
from tests.fuzzing.target import Target

_SLOW_SECONDS: Final = 0.1
"""What no input may take, without the instruments that measure coverage."""

_HANGS_SECONDS: Final = 20
_MOST_MIB: Final = 1024
_WORD: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_.-]{2,24}")
_DONE: Final = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+)")
_MEMORY: Final = re.compile(r"stat::peak_rss_mb:\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of one target.

    Attributes:
        runs: How many inputs were tried.
        seconds: How long that took, start included.
        edges: Edges of the code that were reached.
        mib: Most memory that was used.
        slowest: Seconds that the slowest input takes by itself.
        finding: The end of what was said, where something was found.
    """

    name: str
    runs: int
    seconds: float
    edges: int
    mib: int
    slowest: float
    finding: str

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.finding and self.slowest <= _SLOW_SECONDS

    def __str__(self) -> str:
        verdict = "good" if self.is_good else "BAD"
        rate = self.runs / self.seconds
        return (
            f"{self.name:20} {self.runs:>9} {rate:>8.0f}/s {self.edges:>6} edges "
            f"{self.mib:>4} MiB  slowest {self.slowest * 1000:>6.1f} ms  {verdict}"
        )


def fuzz(target: Target, runs: int, seed: int, folder: Path) -> Outcome:
    """Fuzz one target in a process of its own; write findings into *folder*."""
    corpus = Path(tempfile.mkdtemp(dir=folder))
    words = folder / f"{target.name}.words"
    words.write_text(_dictionary(target), "ascii")
    slowest = folder / f"{target.name}.slowest"
    begin = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzzing.child", target.name, str(slowest)),
            *(f"-runs={runs}", f"-seed={seed}", f"-max_len={target.longest}"),
            *(f"-timeout={_HANGS_SECONDS}", f"-rss_limit_mb={_MOST_MIB}"),
            *("-print_final_stats=1", f"-artifact_prefix={folder}/{target.name}-"),
            *(f"-dict={words}", str(corpus)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = time.monotonic() - begin
    said, memory = _DONE.search(done.stdout), _MEMORY.search(done.stdout)
    whole = said is not None and done.returncode == 0
    return Outcome(
        name=target.name,
        runs=int(said[1]) if said else 0,
        seconds=seconds,
        edges=int(said[2]) if said else 0,
        mib=int(memory[1]) if memory else 0,
        slowest=_time_of(target, slowest.read_bytes()) if slowest.exists() else 0.0,
        finding="" if whole else done.stdout[-4000:],
    )


def _dictionary(target: Target) -> str:
    """Return words of the seeds, as libFuzzer reads them."""
    words = {word for seed in target.seeds for word in _WORD.findall(seed[:8192])}
    lines = (f'"{word.decode()}"' for word in sorted(words)[:400])
    return "".join(f"{line}\n" for line in lines)


def _time_of(target: Target, data: bytes) -> float:
    """Return what an input takes where nothing is measured beside it: best of three."""
    times = []
    for _ in range(3):
        begin = time.thread_time()
        target.read(data)
        times.append(time.thread_time() - begin)
    return min(times)


def _arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing")
    parser.add_argument("targets", nargs="*", help="all, if none is named")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs of each")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--seed", type=int, default=0, help="0 is another each time")
    parser.add_argument("--findings", type=Path, help="folder for what is found")
    return parser.parse_args(words)


def main() -> int:
    """Fuzz what the command line says; return how many targets are bad."""
    given = _arguments()
    known: Mapping[str, Target] = all_targets()
    chosen = [known[name] for name in given.targets] or list(known.values())
    if given.findings is not None:
        given.findings.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="parsers-", dir=given.findings)).resolve()
    bad = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for outcome in pool.map(
            lambda target: fuzz(target, given.runs, given.seed, folder), chosen
        ):
            print(outcome, flush=True)  # noqa: T201
            if not outcome.is_good:
                bad += 1
                print(outcome.finding, flush=True)  # noqa: T201
    print(f"{len(chosen) - bad} passed, {bad} failed; see {folder}")  # noqa: T201
    return bad


if __name__ == "__main__":
    sys.exit(min(main(), 1))
