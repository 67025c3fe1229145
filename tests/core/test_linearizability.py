# SPDX-License-Identifier: MIT
"""The checker of histories: what it accepts, and what it does not."""

import pytest

from tests.core.linearizability import NEVER, UNKNOWN, Call, is_linearizable


def history(*calls: tuple[str, str, float, float]) -> list[Call]:
    """Return calls."""
    return [Call(*call) for call in calls]


@pytest.mark.parametrize(
    ("calls", "is_right"),
    [
        (
            history(("sign", "1", 0, 1), ("rotate", "ok", 2, 3), ("sign", "2", 4, 5)),
            True,
        ),
        (history(("rotate", "ok", 0, 1), ("sign", "1", 2, 3)), False),
        (history(("rotate", "ok", 0, 3), ("sign", "1", 2, 4)), True),
        (history(("suspend", "ok", 0, 1), ("sign", "1", 2, 3)), False),
        (history(("suspend", "ok", 0, 1), ("sign", "refused", 2, 3)), True),
        (history(("sign", "refused", 0, 1)), False),
        (history(("suspend", UNKNOWN, 0, NEVER), ("sign", "refused", 2, 3)), True),
        (history(("suspend", UNKNOWN, 0, NEVER), ("sign", "1", 2, 3)), True),
        (
            history(
                ("suspend", UNKNOWN, 0, NEVER),
                ("sign", "refused", 2, 3),
                ("sign", "1", 4, 5),
            ),
            False,
        ),
        (history(("suspend", UNKNOWN, 4, NEVER), ("sign", "refused", 2, 3)), False),
        (history(("sign", UNKNOWN, 0, NEVER)), True),
        (
            history(
                ("rotate", "ok", 0, 9), ("rotate", "ok", 0, 9), ("sign", "3", 0, 9)
            ),
            True,
        ),
        (history(("rotate", "ok", 0, 9), ("sign", "3", 0, 9)), False),
    ],
)
def test_verdict(calls: list[Call], is_right: bool) -> None:
    """A history is accepted if one key alone could have answered so."""
    assert is_linearizable(calls) == is_right
