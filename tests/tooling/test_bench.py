# SPDX-License-Identifier: MIT
"""The harness of the benchmarks: turns, medians, the table and the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Final

import pytest

from hsm_core.factory import open_hsm
from hsm_core.operations import ListKeys, Status, VerifyStore
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing import caller
from tests.bench.__main__ import main
from tests.bench.figures import Absent, Figure, Finding, at_least, at_most
from tests.bench.filled_stores import make
from tests.bench.goals import GOALS, Goal, chosen
from tests.bench.harness import Loop, interleave
from tests.bench.peers.native import AbsentError, compiled
from tests.bench.report import METHOD, page, summary, table
from tests.support import REPOSITORY


@pytest.mark.parametrize(
    ("finding", "is_met"),
    [
        (at_least(0.87, "ratio", 0.86), False),
        (at_least(0.87, "ratio", 0.87), True),
        (at_most(2, "start", 2, "s"), True),
        (at_most(2, "start", 2.0001, "s"), False),
    ],
)
def test_figure(finding: Figure, *, is_met: bool) -> None:
    """A goal is reached by its own value; what misses it by little misses it."""
    assert is_met == finding.is_met


def test_interleave_tells_the_median_of_one_operation() -> None:
    """Rivals take turns, and a round in which the machine was busy does not count."""
    now, turns = 0.0, list[str]()

    def loop(name: str, *seconds: float) -> Loop:
        left = iter(seconds)

        def run(times: int) -> None:
            nonlocal now
            turns.append(name)
            now += times * next(left)

        return run

    rivals = {"a": loop("a", 2.0, 2.0, 90.0, 3.0), "b": loop("b", 1.0, 1.0, 1.0, 1.0)}
    took = interleave(rivals, rounds=3, clock=lambda: now)

    assert {"a": 3.0, "b": 1.0} == took
    assert ["a", "b"] * 4 == turns  # one turn each is the warm-up


def test_loops_of_c_are_absent_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A rival that can't run here is told apart from one that lost."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(AbsentError, match="no C compiler"):
        compiled("openssl_loops", tmp_path)


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


def test_unknown_goal() -> None:
    """A row that does not exist is not passed over in silence."""
    with pytest.raises(ValueError, match="no goal P19"):
        chosen(["P1", "P19"])


def test_published_page_has_every_row() -> None:
    """The page in the documentation tells of all goals."""
    text = (REPOSITORY / "docs" / "reference" / "benchmarks.md").read_text()

    assert [goal.number for goal in GOALS] == list(
        dict.fromkeys(re.findall(r"^\| (P\d+) \|", text, re.MULTILINE))
    )


def test_published_page_tells_the_method_of_today() -> None:
    """What the page says of how it is measured is what the harness says."""
    text = (REPOSITORY / "docs" / "reference" / "benchmarks.md").read_text()

    assert text.endswith(METHOD)


def run_rows(*numbers: str) -> subprocess.CompletedProcess[str]:
    """Measure some rows, or all, in a process of their own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *numbers],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_rows_run() -> None:
    """A small set of rows has figures, whatever they are, and no page is written."""
    page_before = (REPOSITORY / "docs" / "reference" / "benchmarks.md").read_text()
    done = run_rows("P1", "P4")

    assert 0 == done.returncode, done.stderr
    assert {"P1", "P4"} == set(re.findall(r"^\| (P\d+) \|", done.stdout, re.M))
    assert page_before == (REPOSITORY / "docs/reference/benchmarks.md").read_text()


def test_busy_machine_gets_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a load of 1 nothing is measured for the page, and the reason is told."""
    monkeypatch.setattr(os, "getloadavg", lambda: (1.1, 0.0, 0.0))
    told = StringIO()
    with redirect_stderr(told):
        status = main([])

    assert 1 == status
    assert "The load is 1.1" in told.getvalue()


def test_many_keys_are_what_an_hsm_makes(tmp_path: Path) -> None:
    """Keys that are put into a store in bulk are authentic and listed as any others."""
    make(tmp_path / "many", 40)
    settings = Settings(
        key_store=KeyStoreKind.SQLITE,
        key_dir=tmp_path / "many" / "keys",
        sqlite_path=tmp_path / "many" / "keys.sqlite",
        audit_log=tmp_path / "many" / "audit.log",
    )
    with open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as opened:
        hsm = opened.act_as(caller())
        hsm.execute(VerifyStore())
        findings = hsm.execute(Status()).store.findings
        listed = [
            hsm.execute(ListKeys(algorithm=kind)).total for kind in ("", "EC-P256")
        ]

    assert ((), [42, 21]) == (findings, listed)
