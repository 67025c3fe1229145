# SPDX-License-Identifier: MIT
"""What became of the tests of a file of vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from hsm_core.algorithms import Algorithm
from hsm_core.errors import (
    DecryptionError,
    InvalidInputError,
    UnknownAlgorithmError,
    UnsupportedOperationError,
    VerificationError,
)

Test: TypeAlias = Mapping[str, Any]
"""One test: ``tcId``, ``result``, ``flags`` where the result is "acceptable"."""

Counts: TypeAlias = dict[str, dict[str, int]]
"""A tally as it is written down: what happened, to how many, by what."""

REJECTIONS: Final = (VerificationError, DecryptionError)
"""How a signature, a tag or a ciphertext is rejected."""

LOADING: Final = (*REJECTIONS, InvalidInputError)
"""The same where a key, a length or a context may be wrong too."""


@dataclass
class Tally:
    """
    What became of the tests of a file.

    Attributes:
        agreed: Accepted where valid, rejected where invalid, by algorithm.
        inside: The same answer of a provider's own function that no caller reaches,
            by algorithm; these tests are counted above or below as well.
        either: What was done where either way is right, by verb and flag.
        refused: What can't be asked for, by reason.
        wrong: Identifiers of tests with any other outcome.
    """

    agreed: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    either: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def judge(
        self,
        algorithm: Algorithm,
        test: Test,
        attempt: Callable[[], object],
        rejections: tuple[type[Exception], ...] = REJECTIONS,
    ) -> None:
        """Compare the outcome of an attempt with the result that the file states."""
        try:
            attempt()
            accepted = True
        except (UnknownAlgorithmError, UnsupportedOperationError):
            raise
        except rejections:
            accepted = False
        match test["result"], accepted:
            case ("valid", True) | ("invalid", False):
                self.agreed[algorithm.value] += 1
            case ("acceptable", _):
                verb = "accepted" if accepted else "rejected"
                self.either[f"{verb} {test['flags'][-1]}"] += 1
            case _:
                self.wrong.append(str(test["tcId"]))

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
            self.wrong.append(str(test["tcId"]))

    def compare_inside(
        self, algorithm: Algorithm, test: Test, made: object, expected: object
    ) -> None:
        """Compare what a provider's own function made."""
        if made == expected:
            self.inside[algorithm.value] += 1
        else:
            self.wrong.append(f"{test['tcId']} inside")

    def counts(self) -> Counts:
        """Return the tally as it is written down."""
        return {
            "agree": dict(sorted(self.agreed.items())),
            "inside": dict(sorted(self.inside.items())),
            "either": dict(sorted(self.either.items())),
            "refused": dict(sorted(self.refused.items())),
        }


def expect_refusal(error: type[Exception], attempt: Callable[[], object]) -> None:
    """Check that an attempt is refused, beside what is counted."""
    try:
        attempt()
    except error:
        return
    raise AssertionError(f"{attempt} was not refused.")
