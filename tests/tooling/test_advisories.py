# SPDX-License-Identifier: MIT
"""Tests of what is made of pip-audit's answers."""

from tests.advisories import Verdict, judge

ANSWERS = {
    "dependencies": [
        {"name": "good", "version": "1", "vulns": []},
        {
            "name": "bad",
            "version": "2",
            "vulns": [
                {"id": "PYSEC-1", "fix_versions": ["3", "2.1"], "aliases": []},
                {"id": "PYSEC-2", "fix_versions": [], "aliases": []},
            ],
        },
        {"name": "strange", "skip_reason": "Dependency not found on PyPI"},
    ],
    "fixes": [],
}


def test_the_unknown_is_not_clean() -> None:
    """
    A package without an answer is neither clean nor vulnerable.
    """
    expected = Verdict(
        clean=["good"],
        vulnerable=[
            "bad 2: PYSEC-1, mended in 3 or 2.1",
            "bad 2: PYSEC-2, mended in no version",
        ],
        unknown=["strange"],
    )

    assert expected == judge(ANSWERS)
