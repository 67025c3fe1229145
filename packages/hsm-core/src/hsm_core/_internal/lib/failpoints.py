# SPDX-License-Identifier: MIT
"""
Failpoints: named points in the code where a test can inject a failure.

They do nothing until a test installs a handler in this process; no setting and no
environment variable can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

are_watched = False
"""Whether a handler is installed; asked first where a call would cost too much."""

_handler: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """Tell the installed handler, if any, that this point was reached."""
    if _handler is not None:
        _handler(name)


@contextmanager
def install(handler: Callable[[str], None]) -> Iterator[None]:
    """Install a handler for the duration of a ``with`` block."""
    global _handler, are_watched
    before, _handler = _handler, handler
    are_watched = True
    try:
        yield
    finally:
        _handler = before
        are_watched = before is not None
