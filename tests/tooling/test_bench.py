# SPDX-License-Identifier: MIT
"""The harness of the benchmarks: turns, medians, the table and the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.bench.figures import Absent, Finding, at_least, at_most
from tests.bench.goals import GOALS, Goal, chosen
from tests.bench.harness import Loop, interleave, repeated
from tests.bench.peers.native import AbsentError, compiled
from tests.bench.report import METHOD, page, summary, table
from tests.bench.rig import OWN, RAW, SOFTHSM, Rivals
from tests.support import REPOSITORY


class _Machine:
    """A machine whose operations take as long as they are said to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns: list[str] = []

    def loop(self, name: str, *seconds: float) -> Loop:
        """Return a loop whose turns take these seconds an operation, over and over."""
        count = 0

        def run(times: int) -> None:
            nonlocal count
            self.turns.append(name)
            self.now += times * seconds[count % len(seconds)]
            count += 1

        return run

    def clock(self) -> float:
        """Return the seconds that were worked."""
        return self.now


class TestInterleave:
    def test_takes_turns(self) -> None:
        """Rivals follow each other in every round."""
        machine = _Machine()
        rivals = {name: machine.loop(name, 1.0) for name in "ab"}

        interleave(rivals, rounds=3, clock=machine.clock)

        assert ["a", "b"] * 4 == machine.turns  # one turn each is the warm-up

    def test_tells_the_median_of_one_operation(self) -> None:
        """A round in which the machine was busy does not count."""
        machine = _Machine()
        rivals = {"a": machine.loop("a", 2.0, 2.0, 90.0, 3.0)}

        took = interleave(rivals, rounds=3, clock=machine.clock)

        assert {"a": 3.0} == took

    def test_fills_a_turn(self) -> None:
        """A quick operation is done so often that the clock can tell."""
        machine = _Machine()
        rivals = {"a": machine.loop("a", 0.001)}

        took = interleave(rivals, rounds=1, turn_seconds=1.0, clock=machine.clock)

        assert took["a"] == pytest.approx(0.001)
        assert machine.now == pytest.approx(1.0 + 1.0, rel=0.25)  # warm-up and turn

    def test_ends_where_the_clock_stands_still(self) -> None:
        """What takes no time at all is not done for ever."""
        assert {"a": 0.0} == interleave(
            {"a": lambda times: None}, rounds=1, clock=lambda: 0.0
        )


def test_repeated_calls_as_often_as_it_is_told() -> None:
    """A loop calls its function once for each operation."""
    calls: list[int] = []

    repeated(lambda: calls.append(1))(3)

    assert [1, 1, 1] == calls


class TestRivals:
    def test_absent_rival_is_left_out(self) -> None:
        """Who can't run here is not measured, and the reason is kept."""
        rivals = Rivals(repeated(int), raw=repeated(int))

        def refuse() -> Loop:
            raise AbsentError("SoftHSM2 is not installed")

        rivals.invite(SOFTHSM, refuse)

        assert [OWN, RAW] == list(rivals)
        assert {SOFTHSM: "SoftHSM2 is not installed"} == rivals.missing

    def test_no_compiler(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Loops of C are absent where nothing compiles them."""
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(AbsentError, match="no C compiler"):
            compiled("openssl_loops", tmp_path)


class TestFigure:
    @pytest.mark.parametrize(
        ("value", "is_met"), [(0.86, False), (0.87, True), (1.2, True)]
    )
    def test_floor(self, value: float, *, is_met: bool) -> None:
        """A floor is reached by its own value and by more."""
        assert is_met == at_least(0.87, "ratio", value).is_met

    @pytest.mark.parametrize(
        ("value", "is_met"), [(1.9, True), (2, True), (2.0001, False)]
    )
    def test_ceiling(self, value: float, *, is_met: bool) -> None:
        """A ceiling is kept by its own value and by less."""
        assert is_met == at_most(2, "start", value, "s").is_met


_FOUND: Final[Mapping[Goal, Sequence[Finding]]] = {
    Goal("P1", "signatures", lambda _: []): [
        at_least(0.87, "of raw", 0.5, note="raw 20 µs"),
        Absent(what="SoftHSM2 ÷ own", why="SoftHSM2 is not installed"),
    ],
    Goal("P11", "many keys", lambda _: []): [at_most(2, "start", 0.25, "s")],
}


class TestReport:
    def test_table(self) -> None:
        """Each figure has a line with its goal; what is missed is told in bold."""
        assert [
            "| P1 | of raw | ≥ 0.87 x | 0.50 x | **no** | raw 20 µs |",
            "| P1 | SoftHSM2 ÷ own | | | | not measured: SoftHSM2 is not installed |",
            "| P11 | start | ≤ 2 s | 0.25 s | yes |  |",
        ] == table(_FOUND).splitlines()[2:]

    def test_summary(self) -> None:
        """What could not be measured is no goal that was reached."""
        assert summary(_FOUND) == (
            "1 of 2 figures reach their goal; 1 could not be measured."
        )

    def test_page_names_day_and_machine(self) -> None:
        """A page says when and on what it was measured."""
        text = page(_FOUND, date="2026-11-26", machine="2 cores")

        assert "Measured on 2026-11-26: 2 cores." in text
        assert table(_FOUND) in text


class TestGoals:
    def test_all_are_there(self) -> None:
        """There are sixteen goals, in their order."""
        assert [f"P{number}" for number in range(1, 17)] == [g.number for g in GOALS]

    def test_some_are_chosen(self) -> None:
        """One command measures some rows."""
        assert ["P4", "P16"] == [goal.number for goal in chosen(["P16", "P4"])]

    def test_unknown_goal(self) -> None:
        """A row that does not exist is not passed over in silence."""
        with pytest.raises(ValueError, match="no goal P17"):
            chosen(["P1", "P17"])


def test_published_page_has_every_row() -> None:
    """The page in the documentation tells of all sixteen goals."""
    text = (REPOSITORY / "docs" / "reference" / "benchmarks.md").read_text()

    assert [goal.number for goal in GOALS] == list(
        dict.fromkeys(re.findall(r"^\| (P\d+) \|", text, re.MULTILINE))
    )


def test_published_page_tells_the_method_of_today() -> None:
    """What the page says of how it is measured is what the harness says."""
    text = (REPOSITORY / "docs" / "reference" / "benchmarks.md").read_text()

    assert text.endswith(METHOD)
