# SPDX-License-Identifier: MIT
"""
Add up the JUnit reports in a folder: one line for each, one line for all.

The last line is the plain sum that a reader, or a machine, looks for.
"""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple


class Counts(NamedTuple):
    """How the tests of one run, or of several together, ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum of two counts."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def count(report: Path) -> Counts:
    """
    Count the tests in one report.

    A test that broke outside its own body (in a fixture, at import) counts as
    failed.
    """
    total = Counts()
    # The reports are our own test runner's.
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314
        tests, failures, errors, skipped = (
            int(suite.get(name, "0"))
            for name in ("tests", "failures", "errors", "skipped")
        )
        failed = failures + errors
        total = total.plus(Counts(max(tests - failed - skipped, 0), failed, skipped))
    return total


def main(folder: Path) -> int:
    """Print the counts of every report; answer 1 if a test failed or none ran."""
    total = Counts()
    for report in sorted(folder.glob("*.xml")):
        counts = count(report)
        total = total.plus(counts)
        sys.stdout.write(f"{report.stem}: {counts}\n")
    sys.stdout.write(f"{total}\n")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
