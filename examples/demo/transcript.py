# SPDX-License-Identifier: MIT
"""What the demonstration prints."""

import os
import shlex
import time
from collections.abc import Sequence
from typing import IO, Final

__all__ = ["Transcript"]

_SHOWN_LINES: Final = 24


class Transcript:
    """
    Prints what happens, in colour on a terminal only.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._colours = stream.isatty() and "NO_COLOR" not in os.environ
        self._started = time.monotonic()
        self.step_name = "the preparations"
        self._steps = 0

    def title(self, text: str) -> None:
        """Begin."""
        self._print(self._painted("1", text))

    def step(self, text: str) -> None:
        """Begin a numbered step."""
        self._steps += 1
        self.step_name = f"step {self._steps} ({text})"
        self._print("\n" + self._painted("1;34", f"{self._steps:2}. {text}"))

    def say(self, text: str) -> None:
        """Explain."""
        self._print(f"    {text}")

    def command(self, words: Sequence[str]) -> None:
        """Show a command."""
        self._print(self._painted("33", f"    $ {shlex.join(words)}"))

    def output(self, text: str) -> None:
        """Show what a command printed, shortened if it is long."""
        lines = text.rstrip().splitlines()
        for line in lines[:_SHOWN_LINES]:
            self._print(f"      {line}")
        if len(lines) > _SHOWN_LINES:
            self._print(f"      … {len(lines) - _SHOWN_LINES} more lines")

    def good(self, text: str) -> None:
        """Show that something is as it should be."""
        self._print(self._painted("32", f"    ✔ {text}"))

    def bad(self, text: str) -> None:
        """Show why the demonstration ends here."""
        self._print(self._painted("31", f"    ✘ {text}"))

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self._started

    def _painted(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text

    def _print(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
