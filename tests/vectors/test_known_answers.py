# SPDX-License-Identifier: MIT
"""The known answers that the package ships are those of their sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from hsm_core.algorithms import Algorithm
from tests.vectors.known_answers import collect, render


def shipped() -> str:
    """Return the file of the installed package."""
    package = files("hsm_core._internal.crypto")
    return package.joinpath("known_answers.json").read_text("utf-8")


def test_made_from_sources(vectors: Callable[[str], Path]) -> None:
    """
    Collecting the answers from their sources again gives the shipped file.
    """
    assert render(collect(vectors("wycheproof"))) == shipped()


def test_every_algorithm_has_one() -> None:
    """
    There is a known answer with a source for each algorithm of the table.
    """
    answers = json.loads(shipped())

    assert set(Algorithm) == set(answers)
    assert all(answer["source"] for answer in answers.values())
