# SPDX-License-Identifier: MIT
"""Progress of long commands, on standard error if it is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Final, Self

_BAR_CHARACTERS: Final = 24


class Progress:
    """
    Progress line that is updated in place, and cleared at the end.

    Args:
        what: Counted unit, in the plural.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, done: int, total: int | None = None) -> None:
        """Show progress; with a bar if *total* is known."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        text = f"{done} {self._what}"
        if total:
            filled = min(done, total) * _BAR_CHARACTERS // total
            bar = "#" * filled + "-" * (_BAR_CHARACTERS - filled)
            text = f"[{bar}] {done} of {total} {self._what}"
        if text != self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._shown = text
