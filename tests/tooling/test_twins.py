# SPDX-License-Identifier: MIT
"""Generated modules of the core."""

from tests.tooling import twins


def test_the_blocking_objects_are_generated() -> None:
    """The blocking objects are what their asynchronous source gives."""
    assert twins.TWIN.read_text() == twins.blocking(twins.SOURCE.read_text())
