# SPDX-License-Identifier: MIT
"""What counts as a line of code."""

from tests.tooling.size import Lines, lines_of

SOURCE = '''# A comment.
"""A docstring
of two lines."""

import os
from sys import (
    path,
)

__all__ = ["f"]


def f() -> str:
    """Another docstring."""
    # Another comment.
    return """two
lines""" + os.sep + str(path)
'''


def test_lines() -> None:
    """Docstrings, comments and empty lines are left out; imports are told apart."""
    assert Lines(code=8, imports=5) == lines_of(SOURCE)
