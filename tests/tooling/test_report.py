# SPDX-License-Identifier: MIT
"""Tests of the script that adds up what the test sessions reported."""

from pathlib import Path

import pytest

from tests.report import Counts, count, main


def write(folder: Path, name: str, **numbers: int) -> Path:
    """Write a report like pytest's with the given numbers."""
    attributes = " ".join(f'{key}="{value}"' for key, value in numbers.items())
    path = folder / f"{name}.xml"
    path.write_text(f"<testsuites><testsuite {attributes}/></testsuites>")
    return path


def test_counts(tmp_path: Path) -> None:
    """
    Errors count as failed, and what is neither failed nor skipped has passed.
    """
    report = write(tmp_path, "some", tests=10, failures=1, errors=2, skipped=3)

    assert Counts(passed=4, failed=3, skipped=3) == count(report)


def test_sum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Each report has its line, and the last line is the sum of all.
    """
    write(tmp_path, "one", tests=10, failures=0, errors=0, skipped=1)
    write(tmp_path, "two", tests=5, failures=0, errors=0, skipped=0)

    assert main(tmp_path) == 0
    assert [
        "one: 9 passed, 0 failed, 1 skipped",
        "two: 5 passed, 0 failed, 0 skipped",
        "14 passed, 0 failed, 1 skipped",
    ] == capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "numbers",
    [
        {"tests": 2, "failures": 1, "errors": 0, "skipped": 0},
        {"tests": 2, "failures": 0, "errors": 0, "skipped": 2},
    ],
    ids=["failed", "all-skipped"],
)
def test_not_good(tmp_path: Path, numbers: dict[str, int]) -> None:
    """
    A failed test is not good, and neither is a run in which no test passed.
    """
    write(tmp_path, "one", **numbers)

    assert main(tmp_path) == 1


def test_no_report(tmp_path: Path) -> None:
    """
    A run that left no report is not good.
    """
    assert main(tmp_path) == 1
