# SPDX-License-Identifier: MIT
"""Wycheproof's files, and the tally of what was made of their tests."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsm_core.errors import DecryptionError, VerificationError

__all__ = ["Group", "Tally", "Test", "read_groups"]

Group = dict[str, Any]
"""Tests with common parameters, as in the file; ``algorithm`` is the file's own."""

Test = dict[str, Any]
"""One test, as in the file."""


def read_groups(path: Path) -> list[Group]:
    """Return the test groups of a gzip-compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        content = json.load(file)
    return [
        group | {"algorithm": content["algorithm"]} for group in content["testGroups"]
    ]


@dataclass
class Tally:
    """
    What became of the tests of a file.

    Attributes:
        agreed: Accepted where valid, rejected where invalid.
        accepted: Accepted where either way is right.
        rejected: Rejected where either way is right.
        refused: What can't be asked for, by reason.
        wrong: Identifiers of tests with any other outcome.
    """

    agreed: int = 0
    accepted: int = 0
    rejected: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[int] = field(default_factory=list)

    def judge(self, test: Test, attempt: Callable[[], object]) -> None:
        """Compare the outcome of an attempt with the result that the file states."""
        try:
            attempt()
            accepted = True
        except (VerificationError, DecryptionError):
            accepted = False
        match test["result"], accepted:
            case ("valid", True) | ("invalid", False):
                self.agreed += 1
            case ("acceptable", True):
                self.accepted += 1
            case ("acceptable", False):
                self.rejected += 1
            case _:
                self.wrong.append(test["tcId"])

    def refuse(
        self,
        test: Test,
        reason: str,
        error: type[Exception],
        attempt: Callable[[], object],
    ) -> None:
        """Check that an attempt is refused, whatever result the file states."""
        try:
            attempt()
        except error:
            self.refused[reason] += 1
        else:
            self.wrong.append(test["tcId"])

    def row(self, name: str) -> str:
        """Return the row of the published table."""
        tests = self.agreed + self.accepted + self.rejected + self.refused.total()
        either = (
            f"{self.accepted} accepted, {self.rejected} rejected"
            if self.accepted or self.rejected
            else ""
        )
        refused = ", ".join(f"{self.refused[r]} {r}" for r in sorted(self.refused))
        return f"| `{name}` | {tests} | {self.agreed} | {either} | {refused} |"
