# SPDX-License-Identifier: MIT
"""Who acts in the demonstration, and what its steps check."""

import json
from typing import Any, Final

from stage import DemoError, Done

__all__ = ["AUDITOR", "OPERATOR", "expect", "result"]

OPERATOR: Final = ("--actor", "ada", "--roles", "operator")
AUDITOR: Final = ("--actor", "grace", "--roles", "auditor")


def result(done: Done) -> Any:
    """
    Return what a command printed as JSON.

    Raises:
        DemoError: It printed none.
    """
    try:
        return json.loads(done.out)
    except ValueError:
        raise DemoError(f"No JSON was printed: {done.out!r}") from None


def expect(holds: bool, text: str) -> None:
    """
    Check what a step should show.

    Raises:
        DemoError: It does not hold; *text* says what should.
    """
    if not holds:
        raise DemoError(f"{text[0].upper()}{text[1:]}; that is not what happened.")
