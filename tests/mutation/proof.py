# SPDX-License-Identifier: MIT
"""Trying faults of an area, and saying what came of it."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.areas import Area
from tests.mutation.covering import Covered, cover
from tests.mutation.mutants import Mutant, is_equivalent, mutants_of, planted
from tests.mutation.trials import Outcome, attempt, preload
from tests.mutation.warm import try_warm

Fault = tuple[Path, Mutant]
"""A fault, and the path of its module."""

_MISSED = frozenset({Outcome.SURVIVED, Outcome.UNCOVERED})


def faults_of(area: Area, root: Path) -> list[Fault]:
    """Return every fault that can be put into an area's modules, in a fixed order."""
    return [
        (path, mutant)
        for path in area.sources(root)
        for mutant in mutants_of(path.read_text("utf-8"))
    ]


def prove(area: Area, faults: Sequence[Fault], *, root: Path, report: Path) -> float:
    """
    Try faults, and write what came of it.

    Args:
        area: Whose tests are to notice them.

        faults: Some or all of `faults_of` this area.

        root: The folder with ``packages`` and ``tests``; it becomes the current one.

        report: Where to keep which were not noticed; see `unnoticed`.

    Returns:
        How many of those that make a difference were noticed, in per cent.

    Raises:
        RuntimeError: The tests don't pass without a fault.
    """
    os.chdir(root)
    tests = [f"tests/{test}" for test in area.tests]
    preload(tests)
    covered = cover(area.sources(root), tests, report.with_suffix(".covered"))
    _write(f"{report.stem}: {len(faults)} faults, {len(covered.seconds)} tests")
    for path, gap in covered.gaps.items():
        _write(f"  not run: {Path(path).relative_to(root)}: {gap}")
    found: dict[Fault, Outcome] = {}
    for fault, tried in zip(faults, try_warm(faults, tests, covered), strict=True):
        outcome = found[fault] = tried or _try(fault, covered)
        if outcome in _MISSED:
            _write(f"  {outcome} {_line(fault, root)}")
    missed = [_key(fault, root) for fault in found if found[fault] in _MISSED]
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(missed, indent=1) + "\n", "utf-8")
    same = sum(map(is_equivalent, missed))
    score = _per_cent(len(found) - len(missed), len(found) - same)
    _write(
        f"{report.stem}: {len(found) - len(missed)} of {len(found)} noticed, "
        f"{_per_cent(len(found) - len(missed), len(found)):.1f} %, "
        f"{Counter(found.values())[Outcome.TIMEOUT]} of them by taking too long; "
        f"{same} make no difference, without them {score:.1f} %; "
        f"branches run: {covered.branches[1]} of {covered.branches[0]}"
    )
    return score


def unnoticed(report: Path, faults: Sequence[Fault], root: Path) -> list[Fault]:
    """Return those faults that a report says were not noticed."""
    missed: list[list[str]] = json.loads(report.read_text("utf-8"))
    return [fault for fault in faults if _key(fault, root) in missed]


def _try(fault: Fault, covered: Covered) -> Outcome:
    path, mutant = fault
    tests = {t: covered.seconds[t] for t in covered.tests_for(path, mutant)}
    return attempt(path, planted(path.read_text("utf-8"), mutant.number), tests)


def _key(fault: Fault, root: Path) -> list[str]:
    path, mutant = fault
    where = str(path.relative_to(root))
    return [where, mutant.inside, mutant.before, mutant.after]


def _line(fault: Fault, root: Path) -> str:
    where, inside, before, after = _key(fault, root)
    known = "(makes no difference) " if is_equivalent(_key(fault, root)) else ""
    return f"{known}{where}:{fault[1].line} {inside}: {before} -> {after}"


def _per_cent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
