# SPDX-License-Identifier: MIT
"""Which tests run which lines, how long they take, and what none of them runs."""

from __future__ import annotations

import hashlib
import json
import resource
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import coverage
import msgspec
import pytest

from tests.mutation.areas import ROOT
from tests.mutation.mutants import Mutant
from tests.mutation.trials import OPTIONS, in_child

_LONG: Final = 6.0
"""Tests of so many seconds are tried on one fault; more might notice nothing new."""

_AT_IMPORT: Final = ""
"""The name under which coverage keeps what runs outside of any test."""


@dataclass(frozen=True, slots=True)
class Covered:
    """
    What a run of an area's tests has shown.

    Attributes:
        seconds: Processor time that each test takes with its processes, by its id; so
            it depends little on what else the machine does.
        runners: By module and line, the tests that run it.
        gaps: By module, lines and branches that no test runs.
        branches: How many there are, and how many of them are run.
    """

    seconds: dict[str, float]
    runners: dict[str, dict[int, list[str]]]
    gaps: dict[str, str]
    branches: tuple[int, int]

    def is_loading(self, path: Path, mutant: Mutant) -> bool:
        """Return whether a fault lies in what is done while modules are loaded."""
        first, last = mutant.lines
        lines = self.runners.get(str(path), {})
        return any(_AT_IMPORT in lines.get(n, ()) for n in range(first, last + 1))

    def tests_for(self, path: Path, mutant: Mutant) -> list[str]:
        """
        Return the tests that may notice a fault, the quickest first.

        What runs when a module is loaded concerns all tests that run anything in it, or
        all tests where there is nothing else in it. Together they take seconds.
        """
        lines = self.runners.get(str(path), {})
        first, last = mutant.lines
        found = {t for n in range(first, last + 1) for t in lines.get(n, ())}
        if self.is_loading(path, mutant):
            found = {test for tests in lines.values() for test in tests} - {_AT_IMPORT}
            found = found or set(self.seconds)
        quickest = sorted(found & self.seconds.keys(), key=lambda t: self.seconds[t])
        begun = accumulate((self.seconds[test] for test in quickest), initial=0.0)
        return [test for test, at in zip(quickest, begun, strict=False) if at < _LONG]


@dataclass(frozen=True, slots=True)
class _Kept:
    state: str
    covered: Covered


class _Watch:
    """A plugin of pytest that tells coverage which test is being run."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Name what runs now, and note what it took with what it needs."""
        self._measured.switch_context(item.nodeid)
        before = _processor_seconds()
        result = yield
        self.seconds[item.nodeid] = _processor_seconds() - before
        self._measured.switch_context(_AT_IMPORT)
        return result


def _processor_seconds() -> float:
    """Return what this process and those that it waited for have used so far."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def cover(sources: Sequence[Path], tests: Sequence[str], kept: Path) -> Covered:
    """
    Run tests once, and see what they run.

    Args:
        sources: Modules.

        tests: Files of tests.

        kept: A file that holds what was seen, for as long as no program is changed.

    Raises:
        RuntimeError: They don't pass, even without a fault.
    """
    state = _state(tests)
    if kept.exists():
        packed = msgspec.json.decode(kept.read_bytes(), type=_Kept)
        if packed.state == state:
            return packed.covered
    covered = _cover(sources, tests)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(msgspec.json.encode(_Kept(state, covered)))
    return covered


def _state(tests: Sequence[str]) -> str:
    """Return a digest of the names of tests, and of all programs below here."""
    whole = hashlib.sha256("\n".join(tests).encode())
    for folder in ("packages", "src", "tests"):
        for path in sorted(Path(folder).rglob("*.py")):
            whole.update(f"\n{path}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def _cover(sources: Sequence[Path], tests: Sequence[str]) -> Covered:
    with tempfile.TemporaryDirectory() as folder:
        data_file, noted = Path(folder, "coverage"), Path(folder, "noted")

        def work(_: Path) -> int:
            measured = _coverage(data_file, sources)
            watch = _Watch(measured)
            measured.start()
            code = int(pytest.main([*OPTIONS, *tests], plugins=[watch]))
            measured.stop()
            measured.save()
            noted.write_text(json.dumps(watch.seconds))
            return code

        code = in_child(work, 1800)
        if code != 0:
            raise RuntimeError(f"The tests don't pass without a fault: {code}.")
        measured = _coverage(data_file, sources)
        measured.load()
        return _covered(measured, sources, json.loads(noted.read_text()))


def _coverage(data_file: Path, sources: Sequence[Path]) -> coverage.Coverage:
    measured = coverage.Coverage(
        data_file=str(data_file),
        branch=True,
        config_file=False,
        include=[str(path) for path in sources],
    )
    with (ROOT / "pyproject.toml").open("rb") as file:
        report: dict[str, Any] = tomllib.load(file)["tool"]["coverage"]["report"]
    for pattern in report["exclude_also"]:
        measured.exclude(pattern)
    return measured


def _covered(
    measured: coverage.Coverage, sources: Sequence[Path], seconds: dict[str, float]
) -> Covered:
    data = measured.get_data()
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
        measured.json_report(outfile=file.name)
        report = json.load(file)
    totals = report["totals"]
    gaps = {
        str(Path(name).resolve()): _gap(found)
        for name, found in report["files"].items()
        if found["missing_lines"] or found["missing_branches"]
    }
    return Covered(
        seconds,
        {str(path): data.contexts_by_lineno(str(path)) for path in sources},
        gaps,
        (totals["num_branches"], totals["covered_branches"]),
    )


def _gap(found: dict[str, Any]) -> str:
    branches = (f"{before}->{after}" for before, after in found["missing_branches"])
    return ", ".join([*map(str, found["missing_lines"]), *branches])
