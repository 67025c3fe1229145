# SPDX-License-Identifier: MIT
"""Tests of the faults that are put into modules, and of who notices them."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.mutation.areas import AREAS, ROOT
from tests.mutation.mutants import mutants_of, planted

FAULTS = {
    "x = a == b": ["a != b", "x = None"],
    "x = 1 < n": ["1 <= n", "2", "x = None"],
    "f(a and b)": ["a or b", "pass"],
    "n += 1": ["2", "n -= 1"],
    "f(a << 2)": ["3", "a >> 2", "pass"],
    "f(not a)": ["a", "pass"],
    "f(b'a', 'b', True)": ["'XXb'", "False", "b'XXa'", "pass"],
    "f(g(x) for x in y if x)": ["for x in y", "pass"],
    "f(max(a))": ["min(a)", "pass"],
    "if a: g()": ["not a", "pass"],
    "while a: break": ["continue", "not a"],
    "def f(): return a": ["return None"],
    "raise E('text', 'more', number=1)": ["2", "pass"],
    "raise E(f'{a}: text', kind[1]) from b": ["2", "pass"],
    "x = f'{a}:b'": ["'XX:b'", "x = None"],
}
FOR_PEOPLE = [
    '"""A docstring."""',
    "__all__ = ['f']",
    "def f(a: 'Text') -> Annotated[str, 1]: ...",
    "x: Annotated[int, 1]",
    "class A(Struct, frozen=True): x: int",
    "@dataclass(slots=True)\nclass A: x: int",
    "class A:\n    def __repr__(self): return '<A>'",
    "self._log.warning('key.lost', number=1)",
    "assert a == 1",
    "T = TypeVar('T')",
]

MODULE = """
from functools import cache
LIMIT = 3
OTHER = 4

@cache
def small(n):
    return n < LIMIT

def unused():
    return LIMIT
"""
TESTS = """
from hsm_counting import numbers

def test_small():
    assert numbers.small(2)
    assert not numbers.small(3)
"""
RUN = """
import sys
from pathlib import Path
from tests.mutation.areas import Area
from tests.mutation.proof import faults_of, prove, unnoticed

root = Path(sys.argv[1])
sys.path.insert(0, str(root / "src"))
area, report = Area(("src/*/numbers.py",), ("test_numbers.py",)), root / "numbers.json"
faults = faults_of(area, root)
prove(area, faults, root=root, report=report)
print(len(unnoticed(report, faults, root)))
"""


@pytest.mark.parametrize(("source", "expected"), FAULTS.items(), ids=list(FAULTS))
def test_faults(source: str, expected: list[str]) -> None:
    """Each thing that a program does can go wrong in a way of its own."""
    found = mutants_of(source)

    assert expected == sorted(mutant.after.removesuffix(" ") for mutant in found)
    assert {number for number, _ in enumerate(found)} == {m.number for m in found}
    for mutant in found:
        compile(planted(source, mutant.number), "there", "exec")


@pytest.mark.parametrize("source", FOR_PEOPLE)
def test_what_people_read(source: str) -> None:
    """What only people read, or what keeps programmers from mistakes, is left alone."""
    assert [] == mutants_of(source)


def test_where() -> None:
    """A fault tells its line, its statement's lines, and what is around it."""
    source = "class A:\n    def f(self):\n        g(\n            1,\n        )\n"

    *_, mutant = mutants_of(source)

    assert (4, (3, 5), "A.f") == (mutant.line, mutant.lines, mutant.inside)


def test_run(tmp_path: Path) -> None:
    """Faults at the top and in functions are noticed; others are told, and kept."""
    package = tmp_path / "src" / "hsm_counting"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "numbers.py").write_text(MODULE, "utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_numbers.py").write_text(TESTS, "utf-8")

    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )

    path = "src/hsm_counting/numbers.py"
    assert [
        "numbers: 5 faults, 1 tests",
        f"  not run: {path}: 11",
        f"  survived {path}:4 : 4 -> 5",
        f"  uncovered {path}:11 unused: return LIMIT -> return None",
        "numbers: 3 of 5 noticed, 60.0 %, 0 of them by taking too long; 0 make no "
        "difference, without them 60.0 %; branches run: 0 of 0",
        "2",
    ] == done.stdout.splitlines()


@pytest.mark.parametrize("name", AREAS)
def test_areas(name: str) -> None:
    """Each area has modules and tests that are there."""
    area = AREAS[name]

    assert all(list(ROOT.glob(pattern)) for pattern in area.modules)
    assert [] == [test for test in area.tests if not (ROOT / "tests" / test).is_file()]


def test_what_makes_no_difference() -> None:
    """Each fault that is said to make no difference can be put where it is said."""
    with (ROOT / "tests/mutation/equivalents.toml").open("rb") as file:
        listed = tomllib.load(file)["fault"]

    for entry in listed:
        source = (ROOT / entry["module"]).read_text("utf-8")
        known = {(m.inside, m.before, m.after) for m in mutants_of(source)}
        assert (entry["inside"], entry["before"], entry["after"]) in known
        assert entry["why"].endswith(".")
